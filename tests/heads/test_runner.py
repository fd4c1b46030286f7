"""Tasks on features whose effect is known."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunet_fm.features import FeatureCache, FeatureRecipe, read_table
from nnunet_fm.heads.runner import run_job
from nnunet_fm.heads.splits import splits_of
from nnunet_fm.heads.targets import read_targets
from nnunet_fm.heads.task import Task, read_task, shipped_tasks
from nnunet_fm.heads.task_data import Job, make_job

RECIPE = FeatureRecipe(
    "vit", "ab" * 32, "dinov3_test16", {}, (1, 3), "bfloat16", {"strip": "none", "shape": [4, 8, 8]}
)
WIDTH, QUICK = 6, {"steps": 200, "learning_rate": 1e-2, "hidden": 32}


def data(folder: Path, subjects: int = 60, split: bool = True) -> tuple[Path, FeatureCache]:
    """Label, number and time follow the first feature; `noise` follows nothing."""
    rng, cache = np.random.default_rng(0), FeatureCache(folder / "cache")
    rows = []
    for number in range(subjects):
        vector = rng.standard_normal(WIDTH).astype(np.float32)
        (folder / f"{number}.nii").write_text(str(number))
        first = float(vector[0])
        row = {
            "subject_id": f"s{number}",
            "T1": f"{number}.nii",
            "label": "ill" if first > 0 else "well",
        }
        row |= {"age": f"{50 + 10 * first:.3f}", "noise": "ab"[number % 2]}
        row |= {
            "days": f"{np.ceil(rng.exponential(np.exp(-2 * first)) * 200):.0f}",
            "died": str(int(rng.random() < 0.7)),
        }
        rows.append(row | ({"split": "test" if number % 3 == 0 else "train"} if split else {}))
    table = folder / "t.csv"
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    rng = np.random.default_rng(0)
    for row in read_table(table).rows:
        vector = rng.standard_normal(WIDTH).astype(np.float32)
        rng.exponential()
        rng.random()
        pooled = np.stack([np.zeros(WIDTH, np.float32), vector])
        cache.write(RECIPE, cache.key_of(RECIPE, row, "T1"), {"pooled": pooled})
    return table, cache


def job(folder: Path, name: str, split: bool = True, **changes: Any) -> Job:
    table, cache = data(folder, split=split)
    head = QUICK | ({"batch_size": None} if name == "survival" else {})
    plain = (
        read_task(name).model_dump()
        | {"ratios": (0.25, 1.0), "seeds": 1, "head": head, "neighbours": (3,)}
        | changes
    )
    return make_job(name, Task.model_validate(plain), read_table(table), cache, None)


def values(
    results: list[Any], metric: str, ratio: float = 1.0, model: str | None = None
) -> list[float]:
    """Of one model, or of both that learn."""
    models = (model,) if model else ("mlp", "linear")
    return [
        r.value for r in results if (r.metric, r.ratio) == (metric, ratio) and r.model in models
    ]


@pytest.mark.parametrize("split", [True, False])
def test_classes_are_found_where_they_are_and_not_in_noise(split: bool, tmp_path: Path) -> None:
    found, folder = run_job(
        job(tmp_path, "classification", split, target="label"), tmp_path / "out"
    )
    assert min(values(found, "AUC")) > 0.9
    assert np.mean(values(found, "AUC")) >= np.mean(values(found, "AUC", 0.25)) - 0.02
    assert {r.tested for r in found} == {"column split" if split else "5 folds"}
    assert {r.n_test for r in found} == {20 if split else 60}
    assert all(r.low <= r.value <= r.high for r in found)
    noise, _ = run_job(job(tmp_path, "classification", split, target="noise"), tmp_path / "out")
    assert max(values(noise, "AUC")) < 0.8
    lines = list(
        csv.DictReader((folder / "predictions_ratio_1_seed_0.csv").read_text().splitlines())
    )
    assert list(lines[0]) == ["case", "subject", "model", "fold", "truth", "ill", "well"]
    assert len(lines) == 4 * found[0].n_test
    assert values(found, "AUC", model="trivial") == [
        0.5
    ]  # also over folds, whose shares of the classes differ
    assert values(found, "accuracy", model="knn_3")[0] > 0.7
    assert not values(found, "AUC", model="knn_3")
    assert set(values(found, "accuracy", model="trivial")) != set(values(found, "accuracy"))
    assert (folder / "results.csv").read_text().count("\n") == len(found) + 1
    assert "| mlp | AUC | 1 |" in (folder / "results.md").read_text()


def test_numbers_are_predicted_in_their_own_units(tmp_path: Path) -> None:
    found, _ = run_job(job(tmp_path, "regression", target="age"), tmp_path / "out")
    assert max(values(found, "MAE", model="linear")) < 0.5
    assert max(values(found, "MAE", model="mlp")) < 6  # of the mean: 8
    assert min(values(found, "R2", model="linear")) > 0.99
    assert max(values(found, "R2", model="trivial")) <= 0
    days, _ = run_job(
        job(tmp_path, "regression", target="days", loss="stroke_days"), tmp_path / "out"
    )
    assert 0 < min(values(days, "MAE")) < 2000


def test_risks_are_ranked(tmp_path: Path) -> None:
    found, _ = run_job(job(tmp_path, "survival", target="days", event="died"), tmp_path / "out")
    assert min(values(found, "C-index", model="linear")) > 0.7
    assert values(found, "C-index", model="trivial") == [0.5]
    assert np.mean(values(found, "C-index", model="mlp")) > 0.5
    groups = {r.metric: r for r in found if (r.model, r.ratio) == ("linear", 1.0)}
    assert groups["log-rank p"].value < 0.05
    assert groups["median survival, high risk"].value < groups["median survival, low risk"].value
    folds, _ = run_job(
        job(tmp_path, "survival", False, target="days", event="died"), tmp_path / "out"
    )
    assert values(folds, "C-index", model="trivial") == [0.5]
    assert values(folds, "C-index", model="linear")[0] > 0.7


def test_a_time_is_cut_in_two_and_who_is_censored_before_is_in_neither_class(
    tmp_path: Path,
) -> None:
    table, _ = data(tmp_path)
    task = read_task("upenn_binary", ["target=days", "modalities=[T1]", "threshold=100"])
    rows = read_table(table).rows
    found = read_targets(task, rows)
    unknown = sum(r.values["died"] == "0" and float(r.values["days"]) <= 100 for r in rows)
    assert 0 < unknown == found.left_out
    assert found.classes == ("<=100", ">100")
    assert [float(rows[n].values["days"]) > 100 for n in found.kept] == (found.values == 1).tolist()
    cox = read_task("upenn_cox", ["target=days", "modalities=[T1]", "exclude_censored_before=100"])
    assert read_targets(cox, rows).left_out == unknown
    for row in rows:
        row.values["died"] = str(int(float(row.values["days"]) <= 100))
    with pytest.raises(ValueError, match="a label 'before that day', no event"):
        read_targets(read_task("upenn_cox", ["target=days"]), rows)


def test_every_volume_can_be_a_case_and_a_subject_stays_on_one_side(tmp_path: Path) -> None:
    table, cache = data(tmp_path, split=False)
    rng, lines = np.random.default_rng(1), []
    for number in range(30):
        for modality in ("T1", "FLAIR", "T2"):
            (tmp_path / f"v{number}{modality}.nii").write_text(f"{number} {modality}")
        flair, t2 = (
            f"v{number}FLAIR.nii" if number else "",
            f"v{number}T2.nii" if number > 24 else "",
        )  # T2 is rare
        lines.append(f"s{number},v{number}T1.nii,{flair},{t2}")
    table.write_text("\n".join(["subject_id,T1,FLAIR,T2", *lines]))
    for row in read_table(table).rows:
        for n, modality in enumerate(row.volumes):
            vector = (rng.standard_normal(WIDTH) + 3 * n).astype(np.float32)
            cache.write(
                RECIPE, cache.key_of(RECIPE, row, modality), {"pooled": np.stack([vector, vector])}
            )
    task = read_task(
        "mri_sequence",
        ["ratios=[0.1,1.0]", "seeds=1", "models=[linear,knn,trivial]", "neighbours=[1,400]"],
    )
    made = make_job("mri_sequence", task, read_table(table), cache)
    assert made.names[:3] == ["s0:T1", "s1:T1", "s1:FLAIR"]
    for split in splits_of(made)[0]:
        assert not {made.subjects[n] for n in split.train} & {made.subjects[n] for n in split.test}
    found, _ = run_job(made, tmp_path / "out")
    assert values(found, "AUC", model="linear")[0] > 0.95
    assert {r.model for r in found} == {
        "linear",
        "knn_1",
        "trivial",
    }  # 400 neighbours are not there
    visits = {
        "kind": "classification",
        "target": "subject_id",
        "modalities": ("T1", "FLAIR"),
        "classes": {f"s{n}": n % 2 for n in range(30)},
    }
    for complete, count in ((True, 29), (False, 30)):
        job = make_job(
            "x", Task.model_validate(visits | {"complete": complete}), read_table(table), cache
        )
        assert (len(job.names), job.incomplete) == (count, 30 - count)


def test_the_operating_point_is_chosen_among_the_training_cases(tmp_path: Path) -> None:
    words = {"target": "label", "youden_folds": 3, "ratios": (1.0,), "models": ("linear",)}
    found, _ = run_job(job(tmp_path, "classification", **words), tmp_path / "out")
    by_metric = {r.metric: r for r in found}
    assert set(by_metric) == {"AUC", "accuracy", "sensitivity", "specificity"}
    assert min(by_metric["sensitivity"].value, by_metric["specificity"].value) > 0.6
    noise, _ = run_job(
        job(tmp_path, "classification", **words | {"target": "noise"}), tmp_path / "out"
    )
    both = [r.value for r in noise if r.metric in ("sensitivity", "specificity")]
    assert sum(both) < 1.7  # a threshold chosen on the tested cases would flatter


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
    found, folder = run_job(
        job(tmp_path, "regression", target="age", protocol="paper"), tmp_path / "out"
    )
    assert {r.protocol for r in found} == {"paper"}
    assert json.loads((folder / "run.json").read_text())["protocol"] == "paper"


def test_a_class_must_be_on_both_sides(tmp_path: Path) -> None:
    table, cache = data(tmp_path)
    text = table.read_text().splitlines()
    lines = [
        line.replace("ill", "rare") if ",test" in line and n < 20 else line
        for n, line in enumerate(text)
    ]
    table.write_text("\n".join(lines))
    task = Task.model_validate({"kind": "classification", "target": "label", "models": ["linear"]})
    with pytest.raises(ValueError, match=r"no training case \(column split\) is of rare"):
        run_job(make_job("x", task, read_table(table), cache), tmp_path / "out")
    only_well = [line.replace("ill", "well") if ",test" in line else line for line in text]
    table.write_text("\n".join(only_well))
    with pytest.raises(ValueError, match=r"no tested case \(column split\) is of ill"):
        run_job(make_job("x", task, read_table(table), cache), tmp_path / "out")


def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    once = job(tmp_path, "classification", target="label", seeds=2)
    found, folder = run_job(once, tmp_path / "out")
    markers = sorted(folder.glob("ratio*.json"))
    assert len(markers) == 4
    content = markers[1].read_text()
    markers[1].unlink()
    kept = {m: m.stat().st_mtime_ns for m in markers if m != markers[1]}
    again, _ = run_job(job(tmp_path, "classification", target="label", seeds=2), tmp_path / "out")
    assert again == found
    assert json.loads(markers[1].read_text()) == json.loads(content)
    assert {m: m.stat().st_mtime_ns for m in kept} == kept
    _, other = run_job(
        job(tmp_path, "classification", target="label", ratios=(1.0,)), tmp_path / "out"
    )
    assert other != folder


def test_labels_and_values_that_cannot_be_used_say_so(tmp_path: Path) -> None:
    table, cache = data(tmp_path, 12)
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
        ({"kind": "regression"}, "column label holds what is no number"),
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
    only_test = data(tmp_path, 12)[0]
    only_test.write_text(only_test.read_text().replace(",train", ",test"))
    with pytest.raises(ValueError, match="test subjects and no train"):
        run_job(make_job("x", task(), read_table(only_test), cache, None), tmp_path / "out")


@pytest.mark.parametrize("name", sorted(shipped_tasks()))
def test_every_shipped_task_is_read(name: str) -> None:
    assert read_task(name).target


@pytest.mark.parametrize(
    ("given", "overrides", "message"),
    [
        ("brain_aeg", (), "unknown task 'brain_aeg'. Did you mean brain_age"),
        ("brain_age", ("tagret=x",), "unknown key 'tagret'. Did you mean target"),
        ("brain_age", ("head.step=3",), r"unknown key 'head.step'. Did you mean head.steps"),
        ("brain_age", ("ratios=[0]",), "ratios.0: Input should be greater than 0, given: 0"),
        ("survival", ("head.batch_size=4",), "head.batch_size must be null for survival"),
        ("brain_age", ("event=died",), "event names the column of events"),
        ("adni", ("threshold=3",), "classes and threshold both say what the classes are"),
        ("brain_age", ("threshold=3",), "threshold is for classification"),
        ("adni", ("youden_folds=1",), "allowed: 0 for no threshold, or 2 and more"),
        ("adni", ("exclude_censored_before=9",), "exclude_censored_before is for survival"),
        (
            "adni",
            ("models=[svm]",),
            "models.0: Input should be 'mlp', 'linear', 'knn' or 'trivial'",
        ),
    ],
)
def test_tasks_are_strict(given: str, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_task(given, overrides)


def run_words(table: Path, cache: FeatureCache, out: Path) -> tuple[object, ...]:
    return (
        "nnunet-fm",
        "heads",
        "run",
        "classification",
        "--table",
        table,
        "--cache",
        cache.folder,
        "-o",
        out,
    )


def test_the_command_line_runs_a_task(tmp_path: Path, run: Any) -> None:
    table, cache = data(tmp_path)
    assert "brain_age" in run("nnunet-fm", "heads", "list").stdout
    words = (
        *run_words(table, cache, tmp_path / "o"),
        "target=label",
        "ratios=[1.0]",
        "seeds=1",
        "head.steps=20",
    )
    said = run(*words).stdout
    assert "60 cases of 60 subjects; 0 without a target, 0 without a volume" in said
    assert "| linear | AUC | 1 | 40 |" in said
    assert "has no column 'lable'" in run(*words, "target=lable", expect=2).stdout
    (tmp_path / "7.nii").unlink()
    said = run(*words, expect=2).stdout
    assert "7.nii; what else is missing: nnunet-fm features check-table" in said


def test_a_tested_subject_that_was_seen_stops_the_run_or_stands_in_every_output(
    tmp_path: Path, run: Any
) -> None:
    table, cache = data(tmp_path)
    (tmp_path / "seen.txt").write_text("s3\n")  # tested
    words = (
        *run_words(table, cache, tmp_path / "o"),
        "target=label",
        "ratios=[1.0]",
        "seeds=1",
        "models=[linear]",
        "--pretrain",
        tmp_path / "seen.txt",
    )
    said = run(*words, expect=2).stdout
    assert "1 tested cases were seen before: s3 is s3 (subject)" in said
    assert "--allow-leakage" in said
    assert "Leakage allowed: 1 tested cases" in run(*words, "--allow-leakage").stdout
    rows = list(
        csv.DictReader(next((tmp_path / "o").rglob("results.csv")).read_text().splitlines())
    )
    assert {row["leakage"] for row in rows} == {
        "1 tested cases were seen before: s3 is s3 (subject)"
    }
