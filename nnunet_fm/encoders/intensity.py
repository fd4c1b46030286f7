"""Rescale preprocessed volumes to the intensities that an encoder was pretrained on."""

import numpy as np
from jaxtyping import Float

from nnunet_fm.encoders.contract import Z_SCORE_EVERYWHERE, ZERO_TO_ONE

RESCALED = (ZERO_TO_ONE, Z_SCORE_EVERYWHERE)  # intensities other than z-scores of the brain


def rescale_intensity(
    volume: Float[np.ndarray, "z y x"], intensity: str
) -> Float[np.ndarray, "z y x"]:
    """Map z-scores of the brain to values from 0 to 1, or to z-scores of all voxels.

    The brain was clipped to percentiles before; these become 0 and 1, and the background becomes
    the lowest value.

    Args:
        volume: z-scores of the brain, 0 outside.
        intensity: one of `RESCALED`; anything else leaves the volume as it is.
    """
    if intensity not in RESCALED:
        return volume
    inside = volume != 0
    low, high = volume[inside].min(), volume[inside].max()
    unit = np.where(inside, (volume - low) / (high - low), 0).astype(np.float32)
    return unit if intensity == ZERO_TO_ONE else (unit - unit.mean()) / unit.std()
