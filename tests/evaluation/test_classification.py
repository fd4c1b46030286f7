"""Metrics of classifiers against scikit-learn's and MLstatkit's."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from nnunet_fm.evaluation.classification import (
    accuracy,
    auc,
    delong,
    delong_interval,
    macro_auc,
    weighted_auc,
    youden_threshold,
)

RNG = np.random.default_rng
pytestmark = pytest.mark.usefixtures("third_party_warnings")


def scored(seed: int, n: int = 60, ties: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = RNG(seed)
    truth = (np.arange(n) % 3 == 0).astype(int)
    first, second = truth + rng.standard_normal((2, n)) * [[1.0], [1.5]]
    return truth, *(np.round(s, 1) if ties else s for s in (first, second))


@pytest.mark.parametrize("ties", [False, True])
def test_areas_are_scikit_learn_s(ties: bool) -> None:
    for seed in range(5):
        truth, first, _ = scored(seed, ties=ties)
        assert auc(truth, first) == pytest.approx(roc_auc_score(truth, first), abs=1e-12)
    rng = RNG(9)
    truth = rng.integers(0, 4, 200)
    probabilities = rng.dirichlet(np.ones(4), 200) + 0.3 * np.eye(4)[truth]
    probabilities /= probabilities.sum(1, keepdims=True)
    expected = roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    assert macro_auc(truth, probabilities) == pytest.approx(expected, abs=1e-12)
    assert accuracy(truth, probabilities) == pytest.approx(
        (probabilities.argmax(1) == truth).mean()
    )
    two = probabilities[truth < 2][:, :2] / probabilities[truth < 2][:, :2].sum(1, keepdims=True)
    assert macro_auc(truth[truth < 2], two) == pytest.approx(
        roc_auc_score(truth[truth < 2], two[:, 1])
    )


def test_areas_refuse_what_would_be_nan() -> None:
    with pytest.raises(ValueError, match="all 3 cases are of one class"):
        auc(np.ones(3, int), np.arange(3.0))
    with pytest.raises(ValueError, match=r"no case of class \[2\]"):
        macro_auc(np.array([0, 1]), np.full((2, 3), 1 / 3))
    with pytest.raises(ValueError, match="need probabilities, not raw outputs"):
        macro_auc(np.array([0, 1]), np.array([[2.0, 1.0], [0.0, 3.0]]))


@pytest.mark.parametrize("ties", [False, True])
def test_delong_is_mlstatkit_s(ties: bool) -> None:
    from MLstatkit import Delong_test

    for seed in range(5):
        truth, first, second = scored(seed, ties=ties)
        mine, (z, p) = delong(truth, first, second), Delong_test(truth, first, second)[:2]
        assert abs(mine.difference / mine.standard_error) == pytest.approx(abs(z), abs=1e-6)
        assert mine.p == pytest.approx(p, abs=1e-6)
    assert delong(truth, first, first).p == 1


def test_delong_s_interval_covers() -> None:
    hits, true = 0, stats.norm.cdf(1 / np.sqrt(2))
    for seed in range(400):
        rng = RNG(seed)
        truth = (np.arange(40) < 12).astype(int)
        low, high = delong_interval(truth, truth + rng.standard_normal(40))
        hits += low <= true <= high
    assert 0.92 < hits / 400 < 0.98
    assert delong_interval(np.array([0, 0, 1, 1]), np.arange(4.0)) == (0.0, 1.0)


def test_youden_s_threshold_is_the_best_of_the_curve() -> None:
    for seed in range(5):
        truth, first, _ = scored(seed, ties=True)
        false, true, thresholds = roc_curve(truth, first, drop_intermediate=False)
        assert youden_threshold(truth, first) == thresholds[np.argmax(true - false)]


def test_weighted_areas_are_those_of_repeated_cases_and_compare_within_folds() -> None:
    rng = RNG(0)
    truth, scores = rng.integers(0, 2, 30), np.round(rng.standard_normal(30), 1)  # with ties
    weights = rng.integers(0, 4, (5, 30)).astype(float)
    for row, area in zip(weights, weighted_auc(truth, scores, weights), strict=True):
        again = np.repeat(np.arange(30), row.astype(int))
        assert area == pytest.approx(roc_auc_score(truth[again], scores[again]), abs=1e-12)
    fold, ones = np.arange(30) % 3, np.ones((1, 30))
    counts = [(truth[fold == f] == 1).sum() * (truth[fold == f] == 0).sum() for f in range(3)]
    areas = [roc_auc_score(truth[fold == f], scores[fold == f]) for f in range(3)]
    shifted = scores + 100 * fold  # what one fold's model says of another's cases does not matter
    assert weighted_auc(truth, shifted, ones, fold)[0] == pytest.approx(
        np.average(areas, weights=counts)
    )
    one_class = np.stack([np.ones(30), truth.astype(float)])  # the second leaves one class only
    assert np.isnan(weighted_auc(truth, scores, one_class)).tolist() == [False, True]
    with pytest.raises(ValueError, match="no fold has cases of both classes"):
        weighted_auc(truth, scores, ones, truth)
