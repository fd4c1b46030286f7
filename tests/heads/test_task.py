"""Task settings: shipped, strict, and the paper's protocol."""

import json
from pathlib import Path

import pytest

from helpers.heads import run_quickly, task_data
from nnunet_fm.data.subject_table import Row
from nnunet_fm.heads.finetune import FineTuneTask
from nnunet_fm.heads.targets import read_targets
from nnunet_fm.heads.task import read_task, shipped_tasks, task_name


def test_the_paper_s_protocol_trains_epochs_and_is_written_down(tmp_path: Path) -> None:
    task = read_task("brain_age", ["protocol=paper"])
    assert (task.head.epochs, task.standardise_target, task.head.standardise) == (8, False, False)
    assert task.head.learning_rate == 1e-4
    assert read_task("ucsf_idh", ["protocol=paper"]).classes == {
        **read_task("ucsf_idh").classes,
        "unknown": 1,
    }
    assert read_task("adni", ["protocol=paper"]).head.epochs == 8  # says nothing of its own
    assert read_task("adni").head.epochs is None
    results, folder = run_quickly(
        task_data(tmp_path, "regression", target="age", protocol="paper"), tmp_path / "out"
    )
    assert {r.protocol for r in results} == {"paper"}
    assert json.loads((folder / "run.json").read_text())["protocol"] == "paper"


@pytest.mark.parametrize("name", sorted(shipped_tasks()))
def test_every_shipped_task_is_read(name: str) -> None:
    assert read_task(name).target


@pytest.mark.parametrize(
    ("name", "labels", "classes"),
    [
        ("oasis3", ["0.0", "0.5", "1.0", "2.0"], [0, 1, 2, 2]),
        ("oasis3", ["0", "0.5", "1", "3"], [0, 1, 2, 2]),
        ("ppmi", ["0", "2", "101", "4"], [0, 2, 3]),
        ("ppmi", ["0.0", "1.0", "UR", "5.0", "101.0"], [0, 1, 3]),
        ("adni_progression", ["CN", "AD", "", "MCI"], [0, 2, 1]),
    ],
)
def test_the_labels_of_shipped_tasks(name: str, labels: list[str], classes: list[int]) -> None:
    task = read_task(name)
    rows = [Row(str(n), "", "", {}, values={task.target: text}) for n, text in enumerate(labels)]
    assert read_targets(task, rows).values.tolist() == classes


@pytest.mark.parametrize(
    ("source", "overrides", "message"),
    [
        ("brain_aeg", (), "unknown task 'brain_aeg'. Did you mean brain_age"),
        ("brain_age", ("tagret=x",), "unknown key 'tagret'. Did you mean target"),
        ("brain_age", ("head.step=3",), r"unknown key 'head.step'. Did you mean head.steps"),
        ("brain_age", ("ratios=[0]",), "ratios.0: Input should be greater than 0, given: 0"),
        ("survival", ("head.batch_size=4",), "head.batch_size must be null for survival"),
        ("brain_age", ("event=died",), "event names the column of events"),
        ("adni", ("threshold=3",), "classes and threshold both define the classes"),
        ("brain_age", ("threshold=3",), "threshold is for classification"),
        ("adni", ("youden_folds=1",), "allowed: 0 for no threshold, or 2 and more"),
        ("adni", ("fusion=concat", "unit=volume"), "allowed: unit=visit, complete=true, since"),
        ("adni", ("fusion=concat", "complete=false"), "fusion=concat with unit=visit, complete=f"),
        ("adni", ("exclude_censored_before=9",), "exclude_censored_before is for survival"),
        (
            "adni",
            ("models=[svm]",),
            "unknown models.0 'svm'. Allowed: knn, linear, mlp, trivial",
        ),
    ],
)
def test_tasks_are_strict(source: str, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_task(source, overrides)


def test_an_override_of_the_target_names_the_results() -> None:
    for overrides, name in (
        (("target=sex",), "classification_sex"),
        (("target=sex", "seeds=1"), "classification_sex"),
    ):
        task = read_task("classification", overrides)
        assert task_name("classification", task, overrides) == name
        assert task_name("tasks/my.yaml", task, overrides) == "my_sex"
    assert task_name("brain_age", read_task("brain_age", ("seeds=1",)), ("seeds=1",)) == "brain_age"


def test_settings_of_fine_tuning_are_no_part_of_a_task_for_heads() -> None:
    fine_tuned = read_task("aibl", kind=FineTuneTask)
    assert isinstance(fine_tuned, FineTuneTask)
    assert fine_tuned.finetune.balanced
    assert not hasattr(read_task("aibl"), "finetune")
    with pytest.raises(ValueError, match="finetune.epochs=3 is for `heads finetune`"):
        read_task("aibl", ["finetune.epochs=3"])
