"""Label schemes read from `dataset.json`."""

from pathlib import Path

import numpy as np
import pytest

from nnunet_fm.evaluation.labels import (
    LabelScheme,
    Region,
)


def test_regions_come_from_the_dataset(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text('{"labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}}')
    assert LabelScheme.read(path) == LabelScheme(
        (Region("whole", (1, 2)), Region("core", (2,))), ignore=3
    )


def test_numbers_with_names_are_read_as_names_with_numbers(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text('{"labels": {"0": "background", "1": "edema", "2": "core", "4": "core"}}')
    assert LabelScheme.read(path) == LabelScheme((Region("edema", (1,)), Region("core", (2, 4))))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ('{"x": 1.5}', "ValueError: label 'x' is 1.5, not a whole number"),
        ('{"x": true}', "label 'x' is True"),
        ('{"0": "background", "tumour": 1}', "label '0' is 'background'"),
        ('["x"]', "is not a dataset.json of nnU-Net"),
        ('{"background": 0}', "names no label but the background"),
    ],
)
def test_other_descriptions_are_refused(labels: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(f'{{"labels": {labels}}}')
    with pytest.raises(ValueError, match=message):
        LabelScheme.read(path)


def test_a_label_without_a_region_is_refused(tmp_path: Path) -> None:
    scheme = LabelScheme((Region("whole", (1, 2)), Region("core", (2,))), ignore=5)
    scheme.check_labels(np.array([0, 1, 2, 5]), tmp_path)
    with pytest.raises(
        ValueError, match=r"a.nii has label 3, 7, which no region names \(whole 1, 2; core 2\)"
    ):
        scheme.check_labels(np.array([[7, 0], [3, 1]]), Path("a.nii"))
