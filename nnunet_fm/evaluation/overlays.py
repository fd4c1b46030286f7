"""A sheet of slices with ground truth and prediction drawn over them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from matplotlib.figure import Figure

from nnunet_fm.evaluation.labels import Region

TRUTH_COLOUR, PREDICTION_COLOUR = "#0072B2", "#E69F00"  # told apart by colour-blind readers


def overlay_sheet(
    images: list[Path],
    truths: list[Path],
    predictions: list[Path],
    regions: Sequence[Region],
    out: Path,
    title: str,
) -> None:
    """Draw for each case the slice with most foreground: the image, then truth and prediction as contours.

    Args:
        images: one image file per case.
        truths: label files, in the same order.
        predictions: label files, in the same order.
        regions: whose outlines are drawn.
        out: PNG to write.
        title: above the sheet.
    """
    figure = Figure(figsize=(2.6 * len(images), 5.6), layout="constrained")
    axes = figure.subplots(2, len(images), squeeze=False)
    for column, (image_file, truth_file, prediction_file) in enumerate(
        zip(images, truths, predictions, strict=True)
    ):
        image, truth, prediction = (_array(f) for f in (image_file, truth_file, prediction_file))
        z = int((truth > 0).sum((1, 2)).argmax())
        for row in axes:
            row[column].imshow(image[z], cmap="gray", origin="lower")
            row[column].axis("off")
        axes[0, column].set_title(truth_file.name.split(".")[0], fontsize=8)
        for labels, colour, style in (
            (truth, TRUTH_COLOUR, "solid"),
            (prediction, PREDICTION_COLOUR, "dashed"),
        ):
            for mask in (np.isin(labels[z], region.labels) for region in regions):
                if mask.any():
                    axes[1, column].contour(
                        mask, [0.5], colors=colour, linewidths=1.2, linestyles=style
                    )
    figure.suptitle(f"{title}: truth solid blue, prediction dashed orange", fontsize=10)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)


def _array(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
