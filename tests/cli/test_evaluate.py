"""`nnunet-fm evaluate`."""

import csv
from pathlib import Path

import numpy as np
import pytest

from helpers.label_files import write_labels
from nnunet_fm.cli.main import main


def test_scores_are_written_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.zeros((6, 12, 12), int)
    labels[2:4, 3:9, 3:9] = 1
    for folder in ("predictions", "truth"):
        write_labels(tmp_path / folder / "a.nii.gz", labels)
    folders = [str(tmp_path / "predictions"), str(tmp_path / "truth")]
    assert main(["evaluate", *folders, "-np", "1"]) == 2
    assert "give --dataset-json FILE, --scheme NAME, or --regions brats" in capsys.readouterr().err
    words = ["-np", "1", "--scheme", "gli2023", "-o", str(tmp_path / "scores")]
    assert main(["evaluate", *folders, *words]) == 0
    assert "| TC | 1 | 1.0000 ± nan |" in capsys.readouterr().out
    with (tmp_path / "scores" / "scores.csv").open() as stream:
        rows = {row["region"]: row for row in csv.DictReader(stream)}
    assert set(rows) == {"WT", "TC", "ET"}
    assert float(rows["WT"]["dice"]) == 1.0
    table = (tmp_path / "scores" / "scores.md").read_text()
    assert "gli2023" in table.splitlines()[0]
    assert "mean" in table
