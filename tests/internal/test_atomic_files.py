"""Files that are replaced whole or not at all."""

import os
import socket
from pathlib import Path

import pytest
import torch

from nnunet_fm.internal.atomic_files import (
    created_whole,
    leftovers,
    remove_leftovers,
    replaced_atomically,
    temporary_folder,
    write_csv,
    write_text,
)


def test_a_full_disk_spares_the_previous_checkpoint(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint_latest.pth"
    target.write_text("previous")
    with (
        pytest.raises(
            OSError, match=r"previous checkpoint_latest\.pth is intact.*disk space, then continue"
        ),
        replaced_atomically(target, "continue with --c") as temporary,
    ):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")
    assert target.read_text() == "previous"
    assert list(tmp_path.iterdir()) == [target]


def test_other_errors_are_raised_unchanged(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="CUDA error"):  # noqa: SIM117
        with replaced_atomically(tmp_path / "c.pth"):
            raise RuntimeError("CUDA error: out of memory")


def test_a_device_that_refuses_every_byte(tmp_path: Path) -> None:
    """/dev/full refuses every byte, as a full disk does."""
    with pytest.raises(OSError, match=r"could not write .*c\.pth .*Free disk space"):  # noqa: SIM117
        with replaced_atomically(tmp_path / "c.pth") as temporary:
            os.symlink("/dev/full", temporary)
            torch.save({"w": torch.ones(10_000)}, temporary)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"Its folder .*gone is missing: create it"):
        write_text(tmp_path / "gone" / "a.txt", "text")


def test_two_writers_of_one_file_use_two_temporary_files(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with replaced_atomically(target) as first, replaced_atomically(target) as second:
        first.write_text("first")
        second.write_text("second")
    assert target.read_text() == "first"  # it is moved into place last
    assert list(tmp_path.iterdir()) == [target]


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    """torch.save stores the name of the file that it writes to."""
    contents = []
    for _ in range(2):
        with replaced_atomically(tmp_path / "c.pth") as temporary:
            torch.save({"w": torch.ones(3)}, temporary)
        contents.append((tmp_path / "c.pth").read_bytes())
    assert contents[0] == contents[1]


def test_only_what_dead_writers_left_is_removed(tmp_path: Path) -> None:
    dead = tmp_path / f".nnunet-fm-{socket.gethostname()}-999999999-abc.tmp"
    dead.mkdir()
    (dead / "half").touch()
    of_a_user = tmp_path / "results.tmp"
    of_a_user.mkdir()
    with temporary_folder(tmp_path) as alive:
        remove_leftovers(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([alive, of_a_user])


def test_another_machine_counts_as_dead_once_it_has_written_nothing_for_an_hour(
    tmp_path: Path,
) -> None:
    folder = tmp_path / ".nnunet-fm-another-1-abc.tmp"
    (folder / "inner").mkdir(parents=True)
    os.utime(folder, (0, 0))
    assert leftovers(tmp_path) == []  # it has just written to the folder inside
    os.utime(folder / "inner", (0, 0))
    assert leftovers(tmp_path) == [folder]


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "new"
    with pytest.raises(RuntimeError), created_whole(target) as folder:
        (folder / "half").touch()
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with created_whole(target) as folder:
        (folder / "a").touch()
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["a"]


def test_a_table_is_utf8_and_replaced_whole(tmp_path: Path) -> None:
    write_csv([{"case": "Größe", "dice": 0.5}], tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_bytes() == "case,dice\r\nGröße,0.5\r\n".encode()
