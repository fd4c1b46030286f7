"""Folds of a dataset."""

import json
from pathlib import Path

import pytest
from nnunetv2.utilities.crossval_split import generate_crossval_split

from helpers.runs import SMALL_SWEEP as SMALL
from nnunet_fm.experiments.config import Sweep
from nnunet_fm.experiments.planner import plan_sweep
from nnunet_fm.nnunet.file_names import SPLITS_JSON


def test_folds_are_drawn_as_nnunet_does_or_given_and_never_replaced(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    target = folders[0] / "Dataset007_Small" / SPLITS_JSON
    before = target.read_text() if target.is_file() else None
    target.unlink(missing_ok=True)
    try:
        plan_sweep(Sweep.model_validate(SMALL | {"splits": {}}), *folders).write()
        drawn = json.loads(target.read_text())
        cases = sorted({case for fold in drawn for case in fold["val"]})
        assert drawn == generate_crossval_split(cases, seed=12345, n_splits=5)
        plan_sweep(
            Sweep.model_validate(SMALL | {"splits": {"seed": 12345}}), *folders
        )  # the same ones
        with pytest.raises(ValueError, match=r"other folds than the sweep's \(seed 7, 5 folds\)"):
            plan_sweep(Sweep.model_validate(SMALL | {"splits": {"seed": 7}}), *folders)
        target.unlink()
        own = [{"train": cases[:4], "val": cases[4:]}]
        (tmp_path / "own.json").write_text(json.dumps(own))
        plan_sweep(
            Sweep.model_validate(SMALL | {"splits": {"file": str(tmp_path / "own.json")}}), *folders
        ).write()
        assert json.loads(target.read_text()) == own
        (tmp_path / "own.json").write_text(json.dumps([{"train": ["nobody"], "val": cases}]))
        with pytest.raises(ValueError, match="names nobody, which Dataset007_Small does not have"):
            plan_sweep(
                Sweep.model_validate(SMALL | {"splits": {"file": str(tmp_path / "own.json")}}),
                *folders,
            )
    finally:
        target.unlink(missing_ok=True)
        if before is not None:
            target.write_text(before)
