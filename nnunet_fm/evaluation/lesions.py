"""Lesion by lesion: which were found, and how well; in the spirit of the BraTS challenges, not their numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from nnunet_fm.evaluation.metrics import Mask, dice


@dataclass(frozen=True)
class LesionScore:
    """Lesions of one region of one case.

    Attributes:
        lesions: true ones of the asked size.
        found: of these, touched by the prediction.
        false: predicted ones of the asked size that touch no true lesion.
        dice: mean over the true lesions, 0 for one not found, with a 0 for each false one; 1 if
            there are neither.
    """

    lesions: int
    found: int
    false: int
    dice: float

    @property
    def f1(self) -> float:
        """Detection: 2 found / (lesions + found + false); 1 if there is nothing to find and nothing was found."""
        total = self.lesions + self.found + self.false
        return 2 * self.found / total if total else 1.0


def lesion_score(
    prediction: Mask, truth: Mask, spacing: Sequence[float], smallest: float
) -> LesionScore:
    """Compare connected components (26 neighbours; 8 in a slice) of truth and prediction.

    A true lesion is compared with all predicted components that touch it. Unlike the BraTS
    challenges, lesions that lie close to each other are not joined first.

    Args:
        prediction: mask.
        truth: mask of the same shape.
        spacing: mm per voxel along each axis.
        smallest: volume in mm³ below which a lesion, true or predicted, does not count.
    """
    touching = np.ones((3,) * truth.ndim, bool)
    true, count = ndimage.label(truth, touching)
    predicted, _ = ndimage.label(prediction, touching)
    voxels = smallest / float(np.prod(spacing))
    pairs = np.unique(np.stack([true[truth & prediction], predicted[truth & prediction]]), axis=1)
    sizes = np.bincount(true.ravel(), minlength=count + 1)
    scores = []
    for lesion in (n for n in range(1, count + 1) if sizes[n] >= voxels):
        found = pairs[1, pairs[0] == lesion]
        scores.append(dice(np.isin(predicted, found), true == lesion) if len(found) else 0.0)
    predicted_sizes = np.bincount(predicted.ravel())
    alone = np.setdiff1d(np.flatnonzero(predicted_sizes >= voxels), [0, *pairs[1]])
    total = len(scores) + len(alone)
    return LesionScore(
        len(scores),
        sum(s > 0 for s in scores),
        len(alone),
        float(np.sum(scores)) / total if total else 1.0,
    )
