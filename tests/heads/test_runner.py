"""Tasks on features whose effect is known."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.heads import feature_table, run_command, run_quickly, task_data, values


@pytest.mark.parametrize("split", [True, False])
def test_classes_are_found_in_features_and_not_in_noise(split: bool, tmp_path: Path) -> None:
    results, folder = run_quickly(
        task_data(tmp_path, "classification", split, target="label"), tmp_path / "out"
    )
    assert min(values(results, "AUC")) > 0.9
    assert np.mean(values(results, "AUC")) >= np.mean(values(results, "AUC", 0.25)) - 0.02
    assert {r.tested for r in results} == {"column split" if split else "5 folds"}
    assert {r.n_test for r in results} == {20 if split else 60}
    assert all(r.low <= r.value <= r.high for r in results)
    noise, _ = run_quickly(
        task_data(tmp_path, "classification", split, target="noise"), tmp_path / "out"
    )
    assert max(values(noise, "AUC")) < 0.8
    lines = list(
        csv.DictReader((folder / "predictions_ratio_1_seed_0.csv").read_text().splitlines())
    )
    assert list(lines[0]) == ["case", "subject", "model", "fold", "truth", "ill", "well"]
    assert len(lines) == 4 * results[0].n_test
    assert values(results, "AUC", model="trivial") == [
        0.5
    ]  # also over folds, whose shares of the classes differ
    assert values(results, "accuracy", model="knn_3")[0] > 0.7
    assert not values(results, "AUC", model="knn_3")
    assert set(values(results, "accuracy", model="trivial")) != set(values(results, "accuracy"))
    assert (folder / "results.csv").read_text().count("\n") == len(results) + 1
    assert "| mlp | AUC | 1 |" in (folder / "results.md").read_text()


def test_numbers_are_predicted_in_their_own_units(tmp_path: Path) -> None:
    results, _ = run_quickly(task_data(tmp_path, "regression", target="age"), tmp_path / "out")
    assert max(values(results, "MAE", model="linear")) < 0.5
    assert max(values(results, "MAE", model="mlp")) < 6  # of the mean: 8
    assert min(values(results, "R2", model="linear")) > 0.99
    assert max(values(results, "R2", model="trivial")) <= 0
    days, _ = run_quickly(
        task_data(tmp_path, "regression", target="days", loss="stroke_days"), tmp_path / "out"
    )
    assert 0 < min(values(days, "MAE")) < 2000


def test_risks_are_ranked(tmp_path: Path) -> None:
    results, _ = run_quickly(
        task_data(tmp_path, "survival", target="days", event="died"), tmp_path / "out"
    )
    assert min(values(results, "C-index", model="linear")) > 0.7
    assert values(results, "C-index", model="trivial") == [0.5]
    assert np.mean(values(results, "C-index", model="mlp")) > 0.5
    groups = {r.metric: r for r in results if (r.model, r.ratio) == ("linear", 1.0)}
    assert groups["log-rank p"].value < 0.05
    assert groups["median survival, high risk"].value < groups["median survival, low risk"].value
    folds, _ = run_quickly(
        task_data(tmp_path, "survival", False, target="days", event="died"), tmp_path / "out"
    )
    assert values(folds, "C-index", model="trivial") == [0.5]
    assert values(folds, "C-index", model="linear")[0] > 0.7


def test_the_operating_point_is_chosen_among_the_training_cases(tmp_path: Path) -> None:
    settings = {"target": "label", "youden_folds": 3, "ratios": (1.0,), "models": ("linear",)}
    results, _ = run_quickly(task_data(tmp_path, "classification", **settings), tmp_path / "out")
    by_metric = {r.metric: r for r in results}
    names = ("sensitivity for well", "specificity for well")
    assert set(by_metric) == {"AUC", "accuracy", *names}
    assert min(by_metric[name].value for name in names) > 0.6
    noise, _ = run_quickly(
        task_data(tmp_path, "classification", **settings | {"target": "noise"}), tmp_path / "out"
    )
    both = [r.value for r in noise if "ity for b" in r.metric]
    assert len(both) == 2
    assert sum(both) < 1.7  # a threshold chosen on the tested cases would flatter


def test_an_interrupted_run_resumes(tmp_path: Path) -> None:
    once = task_data(tmp_path, "classification", target="label", seeds=2)
    results, folder = run_quickly(once, tmp_path / "out")
    markers = sorted(folder.glob("ratio*.json"))
    assert len(markers) == 4
    content = markers[1].read_text()
    markers[1].unlink()
    kept = {m: m.stat().st_mtime_ns for m in markers if m != markers[1]}
    again, _ = run_quickly(
        task_data(tmp_path, "classification", target="label", seeds=2), tmp_path / "out"
    )
    assert again == results
    assert json.loads(markers[1].read_text()) == json.loads(content)
    assert {m: m.stat().st_mtime_ns for m in kept} == kept
    _, other = run_quickly(
        task_data(tmp_path, "classification", target="label", ratios=(1.0,)), tmp_path / "out"
    )
    assert other != folder


def test_the_command_line_runs_a_task(tmp_path: Path, run: Any) -> None:
    table, cache = feature_table(tmp_path)
    assert "brain_age" in run("nnunet-fm", "heads", "list").stdout
    command = (
        *run_command(table, cache, tmp_path / "o"),
        "target=label",
        "ratios=[1.0]",
        "seeds=1",
        "head.steps=20",
    )
    output = run(*command).stdout
    assert "60 cases of 60 subjects; 0 without a target, 0 without a volume" in output
    assert "| linear | AUC | 1 | 40 |" in output
    assert "has no column 'lable'" in run(*command, "target=lable", expect=2).stdout
    (tmp_path / "7.nii").unlink()
    output = run(*command, expect=2).stdout
    assert "7.nii; find all missing files with: nnunet-fm features check-table" in output


def test_a_test_subject_that_was_seen_stops_the_run_or_is_recorded_in_every_output(
    tmp_path: Path, run: Any
) -> None:
    table, cache = feature_table(tmp_path)
    (tmp_path / "seen.txt").write_text("s3\n")  # tested
    command = (
        *run_command(table, cache, tmp_path / "o"),
        "target=label",
        "ratios=[1.0]",
        "seeds=1",
        "models=[linear]",
        "--pretrain",
        tmp_path / "seen.txt",
    )
    output = run(*command, expect=2).stdout
    assert "1 tested cases were seen before: s3 is s3 (subject)" in output
    assert "--allow-leakage" in output
    assert "Leakage allowed: 1 tested cases" in run(*command, "--allow-leakage").stdout
    rows = list(
        csv.DictReader(next((tmp_path / "o").rglob("results.csv")).read_text().splitlines())
    )
    assert {row["leakage"] for row in rows} == {
        "1 tested cases were seen before: s3 is s3 (subject)"
    }
