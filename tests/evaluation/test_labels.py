"""Label schemes read from `dataset.json`."""

from pathlib import Path

import pytest

from nnunet_fm.evaluation.labels import (
    BRATS_REGIONS,
    LabelScheme,
    Region,
    scheme_of_predictions,
)


def test_regions_come_from_the_dataset(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text('{"labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}}')
    assert LabelScheme.read(path) == LabelScheme(
        (Region("whole", (1, 2)), Region("core", (2,))), ignore=3
    )


def test_the_scheme_of_predictions_is_the_dataset_s_or_brats(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"give --dataset-json FILE, or --regions brats"):
        scheme_of_predictions(tmp_path)
    assert scheme_of_predictions(tmp_path, "brats") == LabelScheme(BRATS_REGIONS)
    (tmp_path / "dataset.json").write_text('{"labels": {"x": 1}, "file_ending": ".png"}')
    assert scheme_of_predictions(tmp_path) == LabelScheme((Region("x", (1,)),), ending=".png")
    assert scheme_of_predictions(tmp_path, "brats") == LabelScheme(BRATS_REGIONS, ending=".png")
    other = tmp_path / "other.json"
    other.write_text('{"labels": {"y": 2}}')
    assert scheme_of_predictions(tmp_path, dataset_json=other) == LabelScheme((Region("y", (2,)),))
