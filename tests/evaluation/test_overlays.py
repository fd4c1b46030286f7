"""Sheets of slices with outlines."""

from pathlib import Path

import matplotlib
import matplotlib.image
import numpy as np
import SimpleITK as sitk

from helpers.label_files import write_labels
from nnunet_fm.evaluation.labels import Region
from nnunet_fm.evaluation.overlays import overlay_sheet


def test_the_slice_with_most_foreground_is_drawn_with_two_outlines(tmp_path: Path) -> None:
    truth = np.zeros((5, 40, 40), int)
    truth[3, 10:30, 5:30] = 1
    for name, labels in (("truth", truth), ("image", 7 * truth), ("none", 0 * truth)):
        write_labels(tmp_path / f"{name}.nii.gz", labels)
    image, label, none = (tmp_path / f"{n}.nii.gz" for n in ("image", "truth", "none"))
    restored = sitk.Flip(sitk.ReadImage(str(label)), (True, False, True), False)
    sitk.WriteImage(restored, str(tmp_path / "restored.nii.gz"))
    backend = matplotlib.get_backend()
    sheets = []
    for prediction in (label, none, tmp_path / "restored.nii.gz"):
        sheet = tmp_path / "out" / f"{prediction.name}.png"
        overlay_sheet([image], [label], [prediction], [Region("x", (1,))], sheet, "case")
        sheets.append(matplotlib.image.imread(sheet))
    assert matplotlib.get_backend() == backend
    assert np.array_equal(sheets[0], sheets[2])
    for sheet, outlined in zip(sheets, (True, False, True), strict=True):
        colour = sheet[..., :3]
        orange = (colour[..., 0] > 0.8) & (colour[..., 2] < 0.3)
        blue = (colour[..., 2] > 0.6) & (colour[..., 0] < 0.2)
        assert blue.any()
        assert orange.any() == outlined
