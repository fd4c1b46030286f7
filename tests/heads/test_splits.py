"""Splits by subject."""

from pathlib import Path

import numpy as np
import pytest

from helpers.heads import RECIPE, WIDTH, feature_table, run_quickly, task_data, values
from nnunet_fm.features import FeatureCache, read_table
from nnunet_fm.heads.splits import make_splits, subset
from nnunet_fm.heads.task import Task, read_task
from nnunet_fm.heads.task_data import TaskInputs


def three_modalities(folder: Path) -> tuple[Path, FeatureCache]:
    """Write a table with T1 of 30 subjects, FLAIR of 29 and T2 of 5, and their features."""
    table, cache = feature_table(folder, split=False)
    rng = np.random.default_rng(1)
    lines = ["subject_id,T1,FLAIR,T2"]
    for number in range(30):
        for modality in ("T1", "FLAIR", "T2"):
            (folder / f"v{number}{modality}.nii").write_text(f"{number} {modality}")
        flair = f"v{number}FLAIR.nii" if number else ""
        t2 = f"v{number}T2.nii" if number > 24 else ""
        lines.append(f"s{number},v{number}T1.nii,{flair},{t2}")
    table.write_text("\n".join(lines))
    for row in read_table(table).rows:
        for n, modality in enumerate(row.volumes):
            vector = (rng.standard_normal(WIDTH) + 3 * n).astype(np.float32)
            pooled = np.stack([vector, vector])
            cache.write(RECIPE, cache.key_of(RECIPE, row, modality), {"pooled": pooled})
    return table, cache


def test_every_volume_can_be_a_case_and_a_subject_stays_on_one_side(tmp_path: Path) -> None:
    table, cache = three_modalities(tmp_path)
    task = read_task(
        "mri_sequence",
        ["ratios=[0.1,1.0]", "seeds=1", "models=[linear,knn,trivial]", "neighbours=[1,400]"],
    )
    data = TaskInputs("mri_sequence", task, read_table(table), cache).collect()
    assert data.names[:3] == ["s0:T1", "s1:T1", "s1:FLAIR"]
    for split in make_splits(data)[0]:
        assert not {data.subjects[n] for n in split.train} & {data.subjects[n] for n in split.test}
    results, _ = run_quickly(data, tmp_path / "out")
    assert values(results, "AUC", model="linear")[0] > 0.95
    # there are fewer than 400 neighbours
    assert {r.model for r in results} == {"linear", "knn_1", "trivial"}


def test_incomplete_visits_are_skipped_or_averaged(tmp_path: Path) -> None:
    table, cache = three_modalities(tmp_path)
    visits = {
        "kind": "classification",
        "target": "subject_id",
        "modalities": ("T1", "FLAIR"),
        "classes": {f"s{n}": n % 2 for n in range(30)},
    }
    for complete, count in ((True, 29), (False, 30)):
        task = Task.model_validate(visits | {"complete": complete})
        data = TaskInputs("x", task, read_table(table), cache).collect()
        assert (len(data.names), data.incomplete) == (count, 30 - count)


def test_a_class_must_be_on_both_sides(tmp_path: Path) -> None:
    table, cache = feature_table(tmp_path)
    text = table.read_text().splitlines()
    lines = [
        line.replace("ill", "rare") if ",test" in line and n < 20 else line
        for n, line in enumerate(text)
    ]
    table.write_text("\n".join(lines))
    task = Task.model_validate({"kind": "classification", "target": "label", "models": ["linear"]})
    with pytest.raises(ValueError, match=r"no training case \(column split\) is of rare"):
        run_quickly(TaskInputs("x", task, read_table(table), cache).collect(), tmp_path / "out")
    only_well = [line.replace("ill", "well") if ",test" in line else line for line in text]
    table.write_text("\n".join(only_well))
    with pytest.raises(ValueError, match=r"no tested case \(column split\) is of ill"):
        run_quickly(TaskInputs("x", task, read_table(table), cache).collect(), tmp_path / "out")


def test_subsets_of_the_training_cases_are_nested_and_differ_between_seeds(tmp_path: Path) -> None:
    data = task_data(tmp_path, "classification", target="label")
    (split,), _ = make_splits(data)
    by_seed = []
    for seed in (0, 1):
        quarter, half, whole = (set(subset(data, split.train, r, seed)) for r in (0.25, 0.5, 1.0))
        assert quarter < half < whole == set(split.train)
        assert quarter == set(subset(data, split.train, 0.25, seed))
        by_seed.append(quarter)
    assert by_seed[0] != by_seed[1]
