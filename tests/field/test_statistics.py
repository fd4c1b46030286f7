"""Statistics of heads: numbers that an independent computation confirms."""

import csv
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from helpers.heads import COMPARED, feature_table, finished_runs, run_quickly, task_data
from nnunet_fm.data.subject_table import read_table
from nnunet_fm.evaluation.classification import delong, delong_interval
from nnunet_fm.evaluation.intervals import mean_limits
from nnunet_fm.evaluation.paired_tests import cohen_dz, permutation_p, rank_biserial, wilcoxon_p
from nnunet_fm.evaluation.survival import kaplan_meier, median_survival
from nnunet_fm.heads.comparison import compare, write_comparison
from nnunet_fm.heads.metrics import TrueTargets
from nnunet_fm.heads.risk_groups import risk_groups
from nnunet_fm.heads.runner import run_task
from nnunet_fm.heads.splits import make_splits
from nnunet_fm.heads.task import read_task
from nnunet_fm.heads.task_data import TaskInputs
from nnunet_fm.internal.atomic_files import write_csv


# Kind: rounding errors that move a result by a whole step.
def test_a_median_survival_at_exactly_one_half_is_reached() -> None:
    times = np.array([22.0, 11, 16, 1, 20, 17, 15, 22, 1, 11])
    events = np.array([0, 1, 1, 1, 1, 1, 1, 0, 1, 1], bool)
    assert median_survival(kaplan_meier(times, events))[0] == 15


def exact_median(times: np.ndarray, events: np.ndarray) -> float:
    share = Fraction(1)
    for time in np.unique(times):
        died = int(events[times == time].sum())
        share *= 1 - Fraction(died, int((times >= time).sum()))
        if share <= Fraction(1, 2):
            return float(time)
    return float("nan")


def test_a_median_survival_is_that_of_exact_fractions() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        times = rng.integers(1, 25, 10).astype(float)
        events = rng.random(10) < 0.8
        median = median_survival(kaplan_meier(times, events))[0]
        assert median == pytest.approx(exact_median(times, events), nan_ok=True)


def test_equal_differences_of_pairs_tie() -> None:
    first = np.array([0.1, 0.2, 0.3, 0.7, 0.8, 0.5])
    second = first + np.array([0.1, -0.1, 0.1, 0.1, 0.1, -0.1])
    exact = np.array([1.0, -1, 1, 1, 1, -1])
    assert wilcoxon_p(first, second) == pytest.approx(wilcoxon_p(np.zeros(6), exact))
    assert rank_biserial(first, second) == pytest.approx(1 / 3)
    assert np.isnan(cohen_dz(first, first + 0.1))
    assert wilcoxon_p(np.array([0.1 + 0.2, 0.5]), np.array([0.3, 0.5])) == 1


def test_a_permutation_p_of_large_values_counts_ties() -> None:
    first = np.array([1, 2, 3, 7, 5]) * 1e6 / 7
    second = first + np.array([1, 1, 1, -1, -1]) * 1e5 / 7
    p = permutation_p(lambda values: float(values.mean()), first, second, 500)
    assert p == 1  # five equal differences, swapped or not, sum to at least one of them


# Kind: limits that claim 95 % and contain the true value less often.
def test_limits_of_seven_patients_hold_or_are_labelled(tmp_path: Path) -> None:
    hits = 0
    for seed in range(300):
        low, high = mean_limits(np.random.default_rng(seed).normal(0.8, 0.1, 7))
        hits += low <= 0.8 <= high
    assert hits / 300 > 0.92
    data = task_data(tmp_path, "classification", target="label", models=("linear", "trivial"))
    splits = ["train" if n > 7 else "test" for n in range(len(data.names))]
    _, folder = run_quickly(replace(data, splits=splits), tmp_path / "o")
    table = (folder / "results.md").read_text()
    assert "less often than in 95 %" in table
    assert "0.5 to 0.5" not in table  # of the trivial model, whatever the cases


def test_an_area_of_a_single_case_has_no_p() -> None:
    truth = np.array([1, 0, 0, 0, 0])
    first = np.array([0.9, 0.1, 0.2, 0.3, 0.4])
    second = np.array([0.2, 0.1, 0.3, 0.0, 0.4])
    for labels in (truth, 1 - truth):
        result = delong(labels, first, second)
        assert abs(result.difference) == pytest.approx(0.5)
        assert np.isnan([result.p, result.standard_error]).all()
        assert np.isnan(delong_interval(labels, second)).all()


def test_a_constant_target_has_no_explained_variance() -> None:
    values = np.full(30, 60.1)
    numbers = np.arange(30)
    truth = TrueTargets("regression", values, np.ones(30, bool), numbers, 0 * numbers)
    assert np.isnan(truth.metrics()["R2"](values + 1, np.ones((1, 30)))).all()


# Kind: two runs that are called alike and were tested on something else.
@pytest.mark.parametrize("column", ["truth", "event"])
def test_runs_with_other_targets_are_not_compared(column: str, tmp_path: Path) -> None:
    words = ("target=days", "event=died", "ratios=[1.0]", "seeds=1", "models=[linear]")
    first, second = finished_runs(tmp_path, words, "survival")
    path = second.folder / "predictions_ratio_1_seed_0.csv"
    with path.open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    lines[0][column] = str(1 - float(lines[0][column]))
    write_csv(lines, path)
    with pytest.raises(ValueError, match="different targets, events, subjects or folds"):
        compare([first, second])


def test_a_comparison_says_that_leakage_was_allowed(tmp_path: Path) -> None:
    first, second = finished_runs(tmp_path, (*COMPARED, "models=[knn]"))
    second.about["leakage"] = "1 tested cases were seen before: s1 is s1 (subject)"
    write_comparison([first, second], tmp_path / "c")
    table = (tmp_path / "c" / "comparison.md").read_text()
    assert f"Leakage allowed, {second.about['encoder']}: 1 tested cases were seen" in table
    assert table.count("Leakage") == 1


# Kind: visits that are counted as if they were subjects.
def test_visits_do_not_make_a_log_rank_test_significant(tmp_path: Path) -> None:
    once = TrueTargets(
        "survival",
        np.arange(1.0, 21),
        np.ones(20, bool),
        np.arange(20),
        np.zeros(20, int),
    )
    high = np.arange(20) % 3 > 0
    visits = np.repeat(np.arange(20), 3)
    thrice = replace(
        once,
        values=once.values[visits] + np.tile([0.0, 100, 200], 20),
        events=once.events[visits],
        subjects=visits,
        fold=0 * visits,
    )
    expected = risk_groups(once, high)
    groups = risk_groups(thrice, high[visits])
    assert (groups.p, groups.high.median) == (expected.p, expected.high.median)
    assert (groups.high.count, groups.low.count) == (13, 7)


def test_two_spellings_of_a_subject_are_one_subject(tmp_path: Path) -> None:
    table, cache = feature_table(tmp_path, 40, split=False)
    text = table.read_text()
    for n in range(0, 40, 2):  # visits of 20 patients
        text = text.replace(f"\ns{n},", f"\nP{n:03d},").replace(f"\ns{n + 1},", f"\np{n},")
    table.write_text(text)
    task = read_task("regression", ("target=age",))
    data = TaskInputs("regression", task, read_table(table), cache).collect()
    assert data.summary().startswith("40 cases of 20 subjects")
    for split in make_splits(data)[0]:
        assert not {data.subjects[n] for n in split.train} & {data.subjects[n] for n in split.test}


def test_the_class_that_sensitivity_is_of_is_named(tmp_path: Path) -> None:
    settings = {"target": "label", "youden_folds": 2, "ratios": (1.0,), "models": ("linear",)}
    results, _ = run_quickly(task_data(tmp_path, "classification", **settings), tmp_path / "o")
    assert "sensitivity for well" in {result.metric for result in results}


def test_cases_without_a_part_in_the_split_are_counted(tmp_path: Path) -> None:
    data = task_data(tmp_path, "classification", target="label")
    splits = ["", "val", *data.splits[2:]]
    assert (
        replace(data, splits=splits)
        .summary()
        .endswith("2 cases neither in train nor in test, unused")
    )
    with pytest.raises(ValueError, match="has val and no test; call the rows to test `test`"):
        make_splits(replace(data, splits=["train", "val"] * 30))


def test_times_are_labelled_with_their_column(tmp_path: Path) -> None:
    settings = {"event": "died", "ratios": (1.0,), "models": ("linear",)}
    data = task_data(tmp_path, "survival", target="days", **settings)
    folder = run_task(data, tmp_path / "o").folder
    (figure,) = folder.glob("survival*.svg")
    assert "<!-- time (days) -->" in figure.read_text()
    renamed = replace(data, task=data.task.model_copy(update={"target": "OS_months"}))
    (figure,) = run_task(renamed, tmp_path / "p").folder.glob("survival*.svg")
    assert "<!-- time (OS_months) -->" in figure.read_text()
