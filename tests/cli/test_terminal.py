"""What a shell does to a command: closed streams, a reader that stops, Ctrl-C during imports."""

import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

from nnunet_fm.cli import terminal
from nnunet_fm.cli.main import main

COMMAND = [sys.executable, "-m", "nnunet_fm.cli", "trainers-path"]


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(closed: str) -> None:
    finished = subprocess.run(
        ["sh", "-c", f'"$0" "$@" {closed}', *COMMAND], capture_output=True, text=True
    )
    assert finished.returncode == 0
    assert not finished.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_is_gone_is_no_error(unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as output:
        finished = subprocess.run(
            COMMAND,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )
    assert finished.returncode == 141
    assert not finished.stderr


def test_a_deleted_folder_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["trainers-path"]) == 2
    assert "the folder in which you typed the command was deleted" in capsys.readouterr().err


def test_ctrl_c_ends_an_import_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    importing = types.SimpleNamespace(__spec__=types.SimpleNamespace(_initializing=True))
    monkeypatch.setitem(sys.modules, "torch", importing)
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit, match="130"):
        terminal._interrupt(signal.SIGINT, None)


def test_ctrl_c_elsewhere_is_an_exception() -> None:
    with pytest.raises(KeyboardInterrupt):
        terminal._interrupt(signal.SIGINT, None)
