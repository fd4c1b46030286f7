"""A sheet of slices with the outlines of ground truth and prediction."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped

from nnunet_fm.data.grids import read_grid, read_on_grid
from nnunet_fm.evaluation.labels import Region
from nnunet_fm.internal.plotting import write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# distinguishable for colour-blind readers
TRUTH_COLOUR = "#0072B2"
PREDICTION_COLOUR = "#E69F00"


def overlay_sheet(
    images: list[Path],
    truths: list[Path],
    predictions: list[Path],
    regions: Sequence[Region],
    out: Path,
    title: str,
) -> None:
    """Draw the slice with most foreground of each case: the image, and the image with outlines.

    Args:
        images: one image file per case.
        truths: label files, in the same order.
        predictions: label files, in the same order.
        regions: regions whose outlines are drawn.
        out: PNG file to write.
        title: title of the sheet.

    Raises:
        ValueError: the files of a case lie in different places.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 * len(images), 5.6), layout="constrained")
    FigureCanvasAgg(figure)  # a canvas of its own: no global backend is chosen
    panels = figure.subplots(2, len(images), squeeze=False)
    cases = zip(images, truths, predictions, strict=True)
    for column, (image, truth, prediction) in enumerate(cases):
        _draw_case(list(panels[:, column]), image, truth, prediction, regions)
    figure.suptitle(f"{title}: truth solid blue, prediction dashed orange", fontsize=10)
    write_figure(figure, out, dpi=120)


def _draw_case(
    panels: "Sequence[Axes]",
    image_file: Path,
    truth_file: Path,
    prediction_file: Path,
    regions: Sequence[Region],
) -> None:
    """Draw a case into the upper panel, and with outlines into the lower one."""
    grid = read_grid(truth_file)
    image = read_on_grid(image_file, grid)
    truth = read_on_grid(truth_file, grid)
    prediction = read_on_grid(prediction_file, grid)
    z = int((truth > 0).sum((1, 2)).argmax())
    for panel in panels:
        panel.imshow(image[z], cmap="gray", origin="lower")
        panel.axis("off")
    upper, lower = panels
    upper.set_title(truth_file.name.split(".")[0], fontsize=8)
    for region in regions:
        _outline(lower, np.isin(truth[z], region.labels), TRUTH_COLOUR, "solid")
        _outline(lower, np.isin(prediction[z], region.labels), PREDICTION_COLOUR, "dashed")


def _outline(panel: "Axes", mask: Shaped[np.ndarray, "y x"], colour: str, style: str) -> None:
    if mask.any():
        panel.contour(mask, [0.5], colors=colour, linewidths=1.2, linestyles=style)
