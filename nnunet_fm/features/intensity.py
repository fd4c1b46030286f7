"""Volumes with the intensities that an encoder was pretrained on."""

import numpy as np
from jaxtyping import Float

from nnunet_fm.encoders.contract import Z_SCORE_EVERYWHERE, ZERO_TO_ONE

MADE = (ZERO_TO_ONE, Z_SCORE_EVERYWHERE)


def with_intensity(
    volume: Float[np.ndarray, "z y x"], intensity: str
) -> Float[np.ndarray, "z y x"]:
    """From z-scores of the brain on 0 to values from 0 to 1, or to z-scores of all voxels; others are left.

    The brain was clipped to percentiles before; these become 0 and 1, and what is outside has the
    lowest value.
    """
    if intensity not in MADE:
        return volume
    inside = volume != 0
    low, high = volume[inside].min(), volume[inside].max()
    unit = np.where(inside, (volume - low) / (high - low), 0).astype(np.float32)
    return unit if intensity == ZERO_TO_ONE else (unit - unit.mean()) / unit.std()
