"""Label schemes read from `dataset.json`."""

from pathlib import Path

from nnunet_fm.evaluation.labels import LabelScheme, Region


def test_regions_come_from_the_dataset(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text('{"labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}}')
    assert LabelScheme.read(path) == LabelScheme(
        (Region("whole", (1, 2)), Region("core", (2,))), ignore=3
    )
