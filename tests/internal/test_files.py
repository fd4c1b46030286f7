"""Files that are replaced whole or not at all."""

import os
from pathlib import Path

import pytest
import torch

from nnunet_fm.internal.files import replaced_atomically


def test_a_full_disk_spares_the_previous_checkpoint(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint_latest.pth"
    target.write_text("previous")
    with pytest.raises(OSError, match=r"the previous checkpoint_latest\.pth is intact.*--c"):  # noqa: SIM117
        with replaced_atomically(str(target), "continue with --c") as temporary:
            Path(temporary).write_text("half")
            raise OSError(28, "No space left on device")
    assert target.read_text() == "previous"
    assert list(tmp_path.iterdir()) == [target]


def test_other_errors_are_raised_unchanged(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="CUDA error"):  # noqa: SIM117
        with replaced_atomically(str(tmp_path / "c.pth")):
            raise RuntimeError("CUDA error: out of memory")


def test_a_device_that_refuses_every_byte(tmp_path: Path) -> None:
    """/dev/full refuses every byte, as a full disk does."""
    with pytest.raises(OSError, match="there was none before"):  # noqa: SIM117
        with replaced_atomically(str(tmp_path / "c.pth")) as temporary:
            os.symlink("/dev/full", temporary)
            torch.save({"w": torch.ones(10_000)}, temporary)
    assert not list(tmp_path.iterdir())
