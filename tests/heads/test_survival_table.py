"""Survival on a real table of days with simulated features whose true effect is known."""

import csv
from pathlib import Path

import numpy as np
import pytest

from nnunet_fm.data.subject_table import Row
from nnunet_fm.evaluation.intervals import Bootstrap
from nnunet_fm.evaluation.survival import concordance, weighted_concordance
from nnunet_fm.heads.models import fit
from nnunet_fm.heads.targets import Targets, read_targets
from nnunet_fm.heads.task import read_task

NOISE, TESTED, REPEATS = 1.5, 80, 200


def survivors(data: Path) -> Targets:
    """BraTS 2020: days to death of 236 patients, those after two years censored there."""
    rows = []
    with (data / "tables" / "brats2020_survival.csv").open() as stream:
        for line in csv.DictReader(stream):
            days = float(line["Survival_days"])
            values = {"survival_days": str(min(days, 730.0)), "died": str(int(days <= 730))}
            rows.append(Row(line["Brats20ID"], "", "", {}, values=values))
    return read_targets(read_task("upenn_cox"), rows)


def features(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The first follows the time through noise, seven follow nothing."""
    place = np.argsort(np.argsort(times, kind="stable"), kind="stable") / len(times)
    x = rng.standard_normal((len(times), 8))
    x[:, 0] = -3 * place + NOISE * rng.standard_normal(len(times))
    return x.astype(np.float32)


def test_intervals_of_the_concordance_cover_its_true_value(shared_data: Path) -> None:
    targets, rng = survivors(shared_data), np.random.default_rng(0)
    patients = len(targets.values)
    place = np.argsort(np.argsort(targets.values, kind="stable"), kind="stable") / patients

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        drawn_patients = rng.integers(patients, size=count)
        return (
            targets.values[drawn_patients],
            targets.events[drawn_patients],
            -3 * place[drawn_patients] + NOISE * rng.standard_normal(count),
        )

    truth = float(np.mean([concordance(*drawn(2000)) for _ in range(10)]))  # of the population
    hits, widths = 0, []
    for repeat in range(REPEATS):
        times, events, risk = drawn(TESTED)
        bootstrap = Bootstrap(np.arange(TESTED), events.astype(int), 400, repeat)
        interval = bootstrap.interval(lambda w: weighted_concordance(times, events, risk, w))  # noqa: B023
        hits += interval.low <= truth <= interval.high
        widths.append(interval.high - interval.low)
    assert 0.6 < truth < 0.9
    assert 0.90 <= hits / REPEATS <= 0.985
    assert np.mean(widths) < 0.2


@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_the_cox_models_find_the_true_effect_and_nothing_else(
    model: str, shared_data: Path
) -> None:
    targets = survivors(shared_data)
    x = features(targets.values, np.random.default_rng(1))
    train, test = np.arange(0, 160), np.arange(160, len(x))
    task = read_task("upenn_cox")

    def index(vectors: np.ndarray) -> float:
        fitted = fit(model, task, vectors[train], targets.of(train), 0)
        risk = fitted.predict(vectors[test])
        return concordance(targets.values[test], targets.events[test], risk)

    best = concordance(targets.values[test], targets.events[test], x[test, 0])
    assert best - 0.08 < index(x) <= best + 0.02
    assert 0.35 < index(x[:, 1:]) < 0.65
