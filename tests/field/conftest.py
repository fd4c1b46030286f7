"""Fixtures of several files: made datasets, and commands in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.brats_downloads import Converter
from helpers.planned_dataset import Planned, Said, write_planned
from nnunet_fm.cli.main import main


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Planned]:
    """Make a dataset of so many cases, with nnU-Net's folders set and a folder to work in."""

    def make(cases: int) -> Planned:
        planned = write_planned(tmp_path / "nn", cases)
        for name, value in planned.environment.items():
            monkeypatch.setenv(name, value)
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        return planned

    return make


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Run a command in this process, check its exit code and return what it printed."""

    def say(*words: object, code: int = 0) -> str:
        try:
            returned = main([str(word) for word in words])
        except SystemExit as stop:  # argparse's
            returned = int(stop.code or 0)
        printed = capsys.readouterr()
        assert returned == code, printed.err
        return printed.out + printed.err

    return say


@pytest.fixture
def convert(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Converter:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    return Converter(tmp_path, capsys)
