"""Label files with anisotropic voxels."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

SPACING = (3.0, 1.0, 0.5)  # z, y, x in mm


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Write whole numbers as a NIfTI file, making its folder."""
    image = sitk.GetImageFromArray(labels.astype(np.uint8))
    image.SetSpacing(tuple(reversed(SPACING)))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
