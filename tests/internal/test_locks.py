"""One writer at a time for a folder."""

import fcntl
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from nnunet_fm.internal.errors import BusyError, InputError
from nnunet_fm.internal.locks import one_writer

HOLD = """
import pathlib, sys, time
from nnunet_fm.internal.locks import one_writer
with one_writer(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_writer_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    store = tmp_path / "store"
    message = r"store is being written by process \d+ on .* since"
    with one_writer(store), pytest.raises(BusyError, match=message), one_writer(store):
        pass
    with one_writer(store):
        pass


def test_a_killed_writer_holds_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match=f"process {process.pid} on"), one_writer(tmp_path):
            pass
        process.kill()
    with one_writer(tmp_path):
        pass


def test_a_refused_writer_leaves_nothing(tmp_path: Path) -> None:
    with suppress(InputError), one_writer(tmp_path / "new" / "run"):
        raise InputError("refused")
    assert not list(tmp_path.iterdir())
    (tmp_path / "kept").mkdir()
    with suppress(InputError), one_writer(tmp_path / "kept"):
        raise InputError("refused")
    assert len(list((tmp_path / "kept").iterdir())) == 1  # the lock file


def test_a_lock_on_a_file_that_was_removed_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused writer removes the file between another one's opening and locking it."""
    folder = tmp_path / "run"
    take = fcntl.flock

    def after_removal(descriptor: int, operation: int) -> None:
        for file in folder.glob("*.lock"):
            file.unlink()
        take(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", after_removal)
    with pytest.raises(BusyError, match="another process"), one_writer(folder):
        pass
