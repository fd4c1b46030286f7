"""Targets read from tables."""

from pathlib import Path
from typing import Any

import pytest

from helpers.heads import feature_table, run_quickly
from nnunet_fm.features import read_table
from nnunet_fm.heads.targets import read_targets
from nnunet_fm.heads.task import Task, read_task
from nnunet_fm.heads.task_data import TaskInputs


def test_a_time_is_divided_in_two_and_earlier_censored_cases_are_in_neither_class(
    tmp_path: Path,
) -> None:
    table, _ = feature_table(tmp_path)
    task = read_task("upenn_binary", ["target=days", "modalities=[T1]", "threshold=100"])
    rows = read_table(table).rows
    targets = read_targets(task, rows)
    unknown = sum(r.values["died"] == "0" and float(r.values["days"]) <= 100 for r in rows)
    assert 0 < unknown == targets.left_out
    assert targets.classes == ("<=100", ">100")
    assert [float(rows[n].values["days"]) > 100 for n in targets.kept] == (
        targets.values == 1
    ).tolist()
    cox = read_task("upenn_cox", ["target=days", "modalities=[T1]", "exclude_censored_before=100"])
    assert read_targets(cox, rows).left_out == unknown
    for row in rows:
        row.values["died"] = str(int(float(row.values["days"]) <= 100))
    with pytest.raises(ValueError, match="a label 'before that day', not an event"):
        read_targets(read_task("upenn_cox", ["target=days"]), rows)


def test_labels_and_values_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    table, cache = feature_table(tmp_path, 12)
    rows = read_table(table).rows

    def task(**changes: Any) -> Task:
        return Task.model_validate({"kind": "classification", "target": "label", **changes})

    assert read_targets(task(classes={"ill": 0, "well": 1}), rows).classes == ("ill", "well")
    rows[0].values["label"] = "n/a"
    assert read_targets(task(), rows).left_out == 1
    for changes, message in (
        ({"target": "lable"}, "no column 'lable'; it has: subject_id"),
        ({"classes": {"ill": 0}}, "labels well of label are in no class"),
        (
            {"classes": {"ill": 0, "well": None}},
            "label has 1 classes among the cases; allowed: 2 or more",
        ),
        ({"classes": {"ill": 0, "well": 2}}, r"classes are numbered \[0, 2\]"),
        ({"kind": "regression"}, "column label holds a value that is not a number"),
    ):
        with pytest.raises(ValueError, match=message):
            read_targets(task(**changes), rows)
    for row in rows:
        row.values["died"], row.values["age"] = "0", "inf"
    survival = {"kind": "survival", "target": "days", "event": "died", "head": {"batch_size": None}}
    with pytest.raises(ValueError, match="no event: died is 1 nowhere"):
        read_targets(task(**survival), rows)
    with pytest.raises(ValueError, match="not finite"):
        read_targets(task(kind="regression", target="age"), rows)
    only_test = feature_table(tmp_path, 12)[0]
    only_test.write_text(only_test.read_text().replace(",train", ",test"))
    with pytest.raises(ValueError, match="test subjects and no train"):
        run_quickly(
            TaskInputs("x", task(), read_table(only_test), cache).collect(), tmp_path / "out"
        )
