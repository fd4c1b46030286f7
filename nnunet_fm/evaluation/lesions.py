"""Lesion-wise scores: which lesions were found, and how well.

They resemble the scores of the BraTS challenges, but are not the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from nnunet_fm.evaluation.metrics import Mask, dice

ROUNDING = 1e-4


@dataclass(frozen=True)
class LesionScore:
    """Lesion-wise scores of one region of one case.

    Attributes:
        lesions: number of true lesions of at least the smallest size.
        found: number of these that the prediction touches.
        false: number of predicted lesions of at least the smallest size that touch no true lesion.
        dice: mean Dice over true and false lesions; 0 for a missed and for a false one. 1 if there
            are neither.
    """

    lesions: int
    found: int
    false: int
    dice: float

    @property
    def f1(self) -> float:
        """F1 of the detection, 2 found / (lesions + found + false); 1 if all three are 0."""
        total = self.lesions + self.found + self.false
        return 2 * self.found / total if total else 1.0


def lesion_score(
    prediction: Mask, truth: Mask, spacing: Sequence[float], smallest: float
) -> LesionScore:
    """Compare connected components (26 neighbours; 8 in a slice) of truth and prediction.

    A true lesion is compared with all predicted components that touch it. Unlike the BraTS
    challenges, lesions that lie close to each other are not joined first.

    Args:
        prediction: predicted mask.
        truth: true mask of the same shape.
        spacing: mm per voxel along each axis.
        smallest: volume in mm³ below which a lesion, true or predicted, does not count.
    """
    neighbours = np.ones((3,) * truth.ndim, bool)
    true, count = ndimage.label(truth, neighbours)
    predicted, _ = ndimage.label(prediction, neighbours)
    # a little less, because spacings in headers are rounded
    voxels = smallest / float(np.prod(spacing)) * (1 - ROUNDING)
    pairs = np.unique(np.stack([true[truth & prediction], predicted[truth & prediction]]), axis=1)
    sizes = np.bincount(true.ravel(), minlength=count + 1)
    scores = []
    for lesion in (n for n in range(1, count + 1) if sizes[n] >= voxels):
        touching = pairs[1, pairs[0] == lesion]
        scores.append(dice(np.isin(predicted, touching), true == lesion) if len(touching) else 0.0)
    predicted_sizes = np.bincount(predicted.ravel())
    false = np.setdiff1d(np.flatnonzero(predicted_sizes >= voxels), [0, *pairs[1]])
    total = len(scores) + len(false)
    return LesionScore(
        lesions=len(scores),
        found=sum(score > 0 for score in scores),
        false=len(false),
        dice=float(np.sum(scores)) / total if total else 1.0,
    )
