"""A sweep from Python and from the command line."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from helpers.runs import SMALL_SWEEP as SMALL
from nnunet_fm.cli.main import main


def test_more_checkpoints_than_disk_are_refused_before_anything_runs(
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(SMALL))
    words = ["sweep", str(tmp_path / "s.yaml"), "-o", str(tmp_path / "sweep")]
    assert main(words) == 2
    assert "point nnUNet_results to a larger disk" in capsys.readouterr().err
    assert not (tmp_path / "sweep" / "logs").exists()
    assert main([*words, "--dry-run"]) == 0
