"""Figures of representation analysis: CKA heat map, patch similarity maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from nnunet_fm.features.cka import Alignment
from nnunet_fm.features.patch_similarity import Point, Slice
from nnunet_fm.internal.plotting import write_figure

COLOURS = "cividis"  # readable without red and green


def draw_alignment(alignments: Sequence[Alignment], path: Path) -> None:
    """Draw a heat map of debiased CKA, the first encoder's layers down and the second's across."""
    rows = list(dict.fromkeys(a.first_layer for a in alignments))
    columns = list(dict.fromkeys(a.second_layer for a in alignments))
    values = np.array([a.debiased for a in alignments]).reshape(len(rows), len(columns))
    figure = Figure(figsize=(1.6 + 0.8 * len(columns), 1.6 + 0.7 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(values, vmin=0, vmax=1, cmap=COLOURS)
    for (row, column), value in np.ndenumerate(values):
        axes.text(
            column, row, f"{value:.2f}", ha="center", va="center", color="w" if value < 0.6 else "k"
        )
    axes.set_xticks(range(len(columns)), [str(c) for c in columns])
    axes.set_yticks(range(len(rows)), [str(r) for r in rows])
    axes.set(xlabel=f"block of {alignments[0].second}", ylabel=f"block of {alignments[0].first}")
    axes.set_title(f"debiased CKA, n = {alignments[0].n}", fontsize=10)
    figure.colorbar(shown, ax=axes)
    write_figure(figure, path)


def draw_similarity(
    image: Slice,
    points: Sequence[Point],
    maps: Mapping[str, Float[np.ndarray, "p h w"]],
    path: Path,
) -> None:
    """Draw one row per point: the slice and the map of each encoder, on one colour scale.

    Args:
        image: the slice.
        points: reference points on the slice.
        maps: similarity maps by encoder, one map per point.
        path: image file to write.
    """
    lowest = min(float(m.min()) for m in maps.values())
    figure = Figure(figsize=(2.4 * (len(maps) + 1), 2.5 * len(points)), layout="constrained")
    grid = figure.subplots(len(points), len(maps) + 1, squeeze=False)
    for line, (axes, (row, column)) in enumerate(zip(grid, points, strict=True)):
        axes[0].imshow(image, cmap="gray")
        axes[0].plot(column, row, "+", color="#D55E00", markersize=12, markeredgewidth=2)
        axes[0].set_title(f"point {row}, {column}", fontsize=9)
        for panel, (name, similarities) in zip(axes[1:], maps.items(), strict=True):
            shown = panel.imshow(similarities[line], vmin=lowest, vmax=1, cmap=COLOURS)
            panel.plot(column, row, "+", color="#D55E00", markersize=8)
            panel.set_title(name if line == 0 else "", fontsize=9)
    for axes in grid.flat:
        axes.set_axis_off()
    figure.colorbar(shown, ax=grid[:, -1], label="cosine similarity")
    write_figure(figure, path)
