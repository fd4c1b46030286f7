"""Subsets of the training cases inside stock nnU-Net."""

import json
from pathlib import Path

from helpers.nnunet import (
    DATASET,
    Run,
    log_of,
    train_words,
)


def test_subsets_cut_the_training_side_only(
    planned: Path, run: Run, nnunet: dict[str, str]
) -> None:
    run(*train_words("SubsetTrainerTest", "2d", "FM_none_r050"))
    model = Path(nnunet["nnUNet_results"]) / DATASET / "SubsetTrainerTest__FM_none_r050__2d"
    log = log_of(model)
    assert "2 of 4 training cases" in log
    summary = json.loads((model / "fold_0" / "validation" / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == 2
