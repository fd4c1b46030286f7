"""Metrics, label schemes and statistics: pure functions that work on arrays and label files.

Segmentations: `dice`, `hausdorff95` and `surface_dice` of two masks, `evaluate_folders` and
`scores_table` of two folders. Classifiers and survival models: `auc`, `macro_auc` with
`delong_interval`, and `concordance`, for one sample; their weighted forms, which `Bootstrap`
resamples, are in the modules `classification` and `survival`. Comparisons are in `paired_tests`.

>>> import numpy as np
>>> dice(np.array([True, True, False]), np.array([True, False, False]))
0.6666666666666666
>>> auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
0.75
>>> round(concordance(np.array([5.0, 9.0]), np.array([True, False]), np.array([2.0, 1.0])), 2)
1.0
"""

from nnunet_fm.evaluation.classification import auc, delong, delong_interval, macro_auc
from nnunet_fm.evaluation.intervals import Bootstrap, Interval
from nnunet_fm.evaluation.labels import BRATS_REGIONS, LabelScheme, Region
from nnunet_fm.evaluation.metrics import dice, hausdorff95, surface_dice
from nnunet_fm.evaluation.score_tables import scores_table
from nnunet_fm.evaluation.segmentation import CaseScore, MetricOptions, evaluate_folders
from nnunet_fm.evaluation.survival import concordance

__all__ = [
    "BRATS_REGIONS",
    "Bootstrap",
    "CaseScore",
    "Interval",
    "LabelScheme",
    "MetricOptions",
    "Region",
    "auc",
    "concordance",
    "delong",
    "delong_interval",
    "dice",
    "evaluate_folders",
    "hausdorff95",
    "macro_auc",
    "scores_table",
    "surface_dice",
]
