"""Elements of all figures: colour-blind safe colours and marks, bands, PNG and SVG files."""

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunet_fm.internal.atomic_files import replaced_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = "osD^vPX"
TICK = r"$\mathdefault{"  # how matplotlib writes the numbers of a logarithmic axis


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
    paths = [stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "svg")]
    for path in paths:
        write_figure(figure, path)
    return paths


def write_figure(figure: "Figure", path: Path, dpi: int = 150) -> None:
    """Write a PNG or SVG file atomically; the same figure gives the same bytes.

    Args:
        figure: the figure.
        path: the file; its folder is created.
        dpi: dots per inch of a PNG file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_atomically(path) as temporary:
        if path.suffix == ".svg":
            temporary.write_text(svg(figure), encoding="utf-8")
        else:
            _show_dollars(figure)
            figure.savefig(temporary, dpi=dpi)


def svg(figure: "Figure") -> str:
    """Draw a figure as SVG; the same figure gives the same text."""
    from matplotlib import rc_context

    _show_dollars(figure)
    stream = StringIO()
    with rc_context({"svg.hashsalt": "nnunet-fm"}):  # names of parts are drawn at random otherwise
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def _show_dollars(figure: "Figure") -> None:
    """Take `$` in names for a dollar, not for a formula, which may be none; axes keep theirs."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        shown = text.get_text()
        if "$" in shown and not shown.startswith(TICK):
            text.set_parse_math(False)
