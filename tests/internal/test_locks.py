"""One writer at a time for a folder."""

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


def test_the_lock_file_of_a_refused_writer_stays_for_one_who_is_opening_it(tmp_path: Path) -> None:
    with suppress(InputError), one_writer(tmp_path / "new" / "run"):
        raise InputError("refused")
    assert len(list((tmp_path / "new" / "run").iterdir())) == 1
    with one_writer(tmp_path / "new" / "run"):
        pass
