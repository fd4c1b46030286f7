"""Evaluation of segmentations by region."""

from nnunet_fm.evaluation.metrics import dice, hausdorff95
from nnunet_fm.evaluation.segmentation import (
    CaseScore,
    Labelling,
    Region,
    evaluate_folders,
    scores_table,
)
from nnunet_fm.internal.files import write_csv

__all__ = [
    "CaseScore",
    "Labelling",
    "Region",
    "dice",
    "evaluate_folders",
    "hausdorff95",
    "scores_table",
    "write_csv",
]
