"""Elements of all figures: colour-blind safe colours and marks, bands, PNG and SVG files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = "osD^vPX"


def new_figure(
    columns: int = 1, rows: int = 1, size: tuple[float, float] = (6, 4.2)
) -> "tuple[Figure, list[Axes]]":
    """Create a figure and its panels, row by row, each of `size` inches; rows share an axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharey="row").flat)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def colour(line: int) -> str:
    """Return the colour of the n-th line."""
    return COLOURS[line % len(COLOURS)]


def draw_band(
    axes: "Axes",
    places: Sequence[float],
    middle: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    label: str,
    line: int,
) -> None:
    """Draw a line with marks, and its limits as a band."""
    axes.plot(places, middle, color=colour(line), marker=MARKS[line % len(MARKS)], label=label)
    axes.fill_between(
        places, np.asarray(low), np.asarray(high), color=colour(line), alpha=0.12, linewidth=0
    )


def save(figure: "Figure", stem: Path) -> list[Path]:
    """Write PNG and SVG files; return their paths."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "svg")]
    for path in paths:
        figure.savefig(path, dpi=150)
    return paths
