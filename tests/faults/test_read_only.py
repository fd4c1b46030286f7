"""What is read from a disk that cannot be written to, and what the refusal of writing says."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from helpers.tables import write_table, write_volume_file
from nnunet_fm.cli.main import main


def test_features_that_are_all_cached_need_no_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = write_volume_file(tmp_path / "a.nii.gz", 1)
    table = write_table(tmp_path / "t.csv", [{"subject_id": "s1", "T1": str(image)}])
    words = ["features", "extract", str(table), "--encoder", "dinov3_test16", "-np", "0"]
    words += ["--shape", "16", "32", "32", "--cache", str(tmp_path / "cache")]
    assert main(words) == 0
    make_read_only(monkeypatch, tmp_path)
    assert main(words) == 0
    assert "1 already cached" in capsys.readouterr().out


def test_the_refusal_names_the_file_and_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = write_volume_file(tmp_path / "a.nii.gz", 1)
    table = write_table(tmp_path / "t.csv", [{"subject_id": "s1", "T1": str(image)}])
    words = ["features", "extract", str(table), "--encoder", "dinov3_test16", "-np", "0"]
    make_read_only(monkeypatch, tmp_path)
    assert main([*words, "--shape", "16", "32", "32", "--cache", str(tmp_path / "cache")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "Errno" not in said
    assert "cache" in said
    assert "read-only" in said


def make_read_only(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the operating system refuse every change below a folder, as a read-only disk does."""

    def refusing(name: str) -> Any:
        original = getattr(os, name)

        def refuse(path: Any, *rest: Any, **options: Any) -> Any:
            flags = rest[0] if name == "open" else os.O_CREAT
            inside = not isinstance(path, int) and os.fspath(path).startswith(str(folder))
            if inside and flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
                raise OSError(errno.EROFS, "Read-only file system", os.fspath(path))
            return original(path, *rest, **options)

        return refuse

    for name in ("open", "mkdir", "unlink", "remove", "replace", "rename", "rmdir"):
        monkeypatch.setattr(os, name, refusing(name))
