"""Figures of representation analysis: what is drawn where."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from nnunet_fm.features.cka import Alignment
from nnunet_fm.features.figures import draw_alignment, draw_similarity


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures that were saved, in order."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments: object, **options: object) -> None:
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_layers_of_the_first_encoder_are_rows(drawn: list[Figure], tmp_path: Path) -> None:
    values = {(2, 2): 0.9, (2, 5): 0.4, (2, 8): 0.1, (5, 2): 0.3, (5, 5): 0.8, (5, 8): -0.02}
    alignments = [
        Alignment("one", row, "two", column, 0.95, value, 0.0, 1.0, value, 40)
        for (row, column), value in values.items()
    ]
    draw_alignment(alignments, tmp_path / "new" / "cka.png")
    axes = drawn[0].axes[0]
    shown = np.asarray(axes.images[0].get_array())
    assert shown.tolist() == [[0.9, 0.4, 0.1], [0.3, 0.8, -0.02]]
    assert [t.get_text() for t in axes.texts] == ["0.90", "0.40", "0.10", "0.30", "0.80", "-0.02"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["2", "5"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["2", "5", "8"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("block of one", "block of two")
    assert axes.get_title() == "debiased CKA, n = 40"
    assert (tmp_path / "new" / "cka.png").read_bytes().startswith(b"\x89PNG")


def test_similarity_has_a_row_for_each_point_and_one_scale(
    drawn: list[Figure], tmp_path: Path
) -> None:
    image = np.arange(12.0).reshape(3, 4)
    maps = {"one": np.full((2, 3, 4), 0.5), "two": np.full((2, 3, 4), -0.25)}
    maps["one"][1, 2, 3] = 1.0
    draw_similarity(image, [(0, 1), (2, 3)], maps, tmp_path / "similarity.png")
    panels = [axes for axes in drawn[0].axes if axes.images][:6]
    pictures = [np.asarray(axes.images[0].get_array()) for axes in panels]
    for picture, expected in zip(
        pictures,
        [image, maps["one"][0], maps["two"][0], image, maps["one"][1], maps["two"][1]],
        strict=True,
    ):
        np.testing.assert_array_equal(picture, expected)
    titles = [axes.get_title() for axes in panels]
    assert titles == ["point 0, 1", "one", "two", "point 2, 3", "", ""]
    assert {panels[n].images[0].get_clim() for n in (1, 2, 4, 5)} == {(-0.25, 1.0)}
    marks = [tuple(float(v[0]) for v in axes.lines[0].get_data()) for axes in panels]
    assert marks == [(1.0, 0.0)] * 3 + [(3.0, 2.0)] * 3  # x is the column, y the row
