"""Averages over regions."""

from pathlib import Path

import numpy as np
import pytest

from nnunet_fm.evaluation.labels import BRATS_REGIONS, LabelScheme
from nnunet_fm.evaluation.score_tables import mean_of_regions
from nnunet_fm.evaluation.segmentation import evaluate_folders

BRATS = LabelScheme(BRATS_REGIONS)


def test_regions_are_averaged_case_by_case(folders: tuple[Path, Path]) -> None:
    scores = evaluate_folders(*folders, BRATS)
    (dots,) = (s for s in mean_of_regions(scores) if s.case == "v1.2 dots")
    assert dots.dice == pytest.approx(np.mean([s.dice for s in scores if s.case == "v1.2 dots"]))
    assert dots.lesions == sum(s.lesions for s in scores if s.case == "v1.2 dots")
