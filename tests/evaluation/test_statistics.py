"""Statistics against other people's implementations."""

import warnings
from collections.abc import Iterator
from functools import partial

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
from nnunet_fm.evaluation.intervals import Bootstrap, bca_limits
from nnunet_fm.evaluation.paired_tests import (
    benjamini_hochberg,
    cohen_dz,
    holm,
    mcnemar_p,
    mean_permutation_p,
    permutation_p,
    rank_biserial,
    wilcoxon_p,
)
from nnunet_fm.evaluation.survival import (
    concordance,
    kaplan_meier,
    logrank_p,
    median_survival,
    weighted_concordance,
)
from nnunet_fm.heads import metrics as heads_scores

RNG = np.random.default_rng


@pytest.fixture(autouse=True)
def _their_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


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
        found, (z, p) = delong(truth, first, second), Delong_test(truth, first, second)[:2]
        assert abs(found.difference / found.standard_error) == pytest.approx(abs(z), abs=1e-6)
        assert found.p == pytest.approx(p, abs=1e-6)
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


@pytest.mark.parametrize("positives", [5, 10])
def test_limits_cover_where_folds_hold_few_of_a_class(positives: int) -> None:
    hits, true = 0, stats.norm.cdf(1 / np.sqrt(2))
    for seed in range(100):
        values = (np.arange(60) < positives).astype(float)
        scores = values + RNG(seed).standard_normal(60)
        tested = heads_scores.Tested(
            "classification", values, values > 0, np.arange(60), np.arange(60) % 5
        )
        output = np.stack([-scores, scores], axis=1)
        found = tested.bootstrap(400).interval(partial(tested.metrics()["AUC"], output))
        hits += found.low <= true <= found.high
    assert hits / 100 > 0.88


def test_subjects_are_drawn_with_all_their_cases() -> None:
    subjects = np.repeat(
        np.arange(12), 4
    )  # four cases that say the same are not four times as much
    values = RNG(0).standard_normal(12)
    once = Bootstrap(np.arange(12), resamples=2000).interval(lambda w: w @ values / w.sum(1))
    often = Bootstrap(subjects, resamples=2000).interval(lambda w: w @ values[subjects] / w.sum(1))
    assert (often.low, often.high) == pytest.approx((once.low, once.high))
    drawn = Bootstrap(subjects, subjects % 3).drawn
    assert (drawn.reshape(-1, 12, 4) == drawn.reshape(-1, 12, 4)[..., :1]).all()
    assert (drawn[:, subjects % 3 == 0].sum(1) == 16).all()  # four of twelve subjects
    swapped = permutation_p(
        lambda o: float(o.mean()), values[subjects] * 0, values[subjects] + 1, subjects=subjects
    )
    alone = permutation_p(lambda o: float(o.mean()), values[subjects] * 0, values[subjects] + 1)
    assert swapped > 2 * alone


def test_weighted_metrics_are_those_of_repeated_cases_and_compare_within_folds() -> None:
    rng = RNG(0)
    truth, scores = rng.integers(0, 2, 30), np.round(rng.standard_normal(30), 1)  # with ties
    times, events = np.ceil(rng.exponential(5, 30)), rng.random(30) < 0.6
    weights = rng.integers(0, 4, (5, 30)).astype(float)
    areas, indices = (
        weighted_auc(truth, scores, weights),
        weighted_concordance(times, events, scores, weights),
    )
    for row, area, index in zip(weights, areas, indices, strict=True):
        again = np.repeat(np.arange(30), row.astype(int))
        assert area == pytest.approx(roc_auc_score(truth[again], scores[again]), abs=1e-12)
        assert index == pytest.approx(
            concordance(times[again], events[again], scores[again]), abs=1e-12
        )
    fold, ones = np.arange(30) % 3, np.ones((1, 30))
    counts = [(truth[fold == f] == 1).sum() * (truth[fold == f] == 0).sum() for f in range(3)]
    areas = [roc_auc_score(truth[fold == f], scores[fold == f]) for f in range(3)]
    shifted = scores + 100 * fold  # what one fold's model says of another's cases does not matter
    assert weighted_auc(truth, shifted, ones, fold)[0] == pytest.approx(
        np.average(areas, weights=counts)
    )
    apart = weighted_concordance(times, events, shifted, ones, fold)
    assert apart == pytest.approx(weighted_concordance(times, events, scores, ones, fold))
    nobody = np.stack([np.ones(30), truth.astype(float)])  # the second leaves one class only
    assert np.isnan(weighted_auc(truth, scores, nobody)).tolist() == [False, True]
    with pytest.raises(ValueError, match="no fold has cases of both classes"):
        weighted_auc(truth, scores, ones, truth)


def test_bca_limits_are_scipy_s() -> None:
    data = RNG(0).gamma(2.0, size=40)
    theirs = stats.bootstrap((data,), np.mean, n_resamples=999, method="BCa", rng=RNG(1))
    jackknife = np.array([np.delete(data, i).mean() for i in range(len(data))])
    mine = bca_limits(theirs.bootstrap_distribution, float(data.mean()), jackknife, 0.95)
    assert mine == pytest.approx(tuple(theirs.confidence_interval), abs=1e-9)


def test_stratified_intervals_cover_and_never_lose_a_class() -> None:
    hits, true = 0, stats.norm.cdf(1 / np.sqrt(2))
    for seed in range(150):
        rng = RNG(seed)
        truth = (np.arange(40) < 11).astype(int)
        scores = truth + rng.standard_normal(40)
        found = Bootstrap(np.arange(40), truth, 400, seed).interval(
            partial(weighted_auc, truth, scores)
        )
        hits += found.low <= true <= found.high
    assert hits / 150 > 0.89
    assert found.method == "stratified BCa"
    rare = np.array([1] + [0] * 30)
    assert (
        Bootstrap(np.arange(31), rare, 200)
        .interval(partial(weighted_auc, rare, np.arange(31.0)))
        .low
        >= 0
    )
    same = Bootstrap(np.arange(10), resamples=50).interval(lambda w: np.full(len(w), 0.5))
    assert (same.low, same.high) == (0.5, 0.5)
    with pytest.raises(ValueError, match="1 subjects; an interval needs 2 or more"):
        Bootstrap(np.zeros(5))


def test_permutations_agree_with_scipy_and_keep_their_level() -> None:
    rng = RNG(0)
    first, second = rng.standard_normal(30), rng.standard_normal(30) + 0.4
    mine = permutation_p(lambda x: float(x.mean()), first, second, resamples=4000)
    theirs = stats.permutation_test(
        (first, second),
        lambda a, b, axis: np.mean(b - a, axis=axis),
        permutation_type="samples",
        n_resamples=4000,
        rng=RNG(1),
    )
    assert mine == pytest.approx(theirs.pvalue, abs=0.02)
    pairs = (RNG(seed).standard_normal((2, 20)) for seed in range(200))
    equal = [permutation_p(lambda x: float(x.mean()), *pair, resamples=99) for pair in pairs]
    assert np.mean(np.array(equal) <= 0.05) < 0.1
    assert permutation_p(lambda x: float(x.mean()), first, first + 100, resamples=99) == 0.01


def test_mcnemar_and_adjustments_are_statsmodels() -> None:
    from statsmodels.stats.contingency_tables import mcnemar
    from statsmodels.stats.multitest import multipletests

    rng = RNG(0)
    first, second = rng.random((2, 80)) < [[0.8], [0.6]]
    table = [
        [(first & second).sum(), (first & ~second).sum()],
        [(~first & second).sum(), (~first & ~second).sum()],
    ]
    assert mcnemar_p(first, second) == pytest.approx(mcnemar(table, exact=True).pvalue, abs=1e-12)
    assert mcnemar_p(first, first) == 1
    p = list(rng.random(9) ** 3)
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1], abs=1e-12)
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1], abs=1e-12)


def survivors(seed: int, n: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = RNG(seed)
    risk = np.round(rng.standard_normal(n), 1)
    times = np.ceil(rng.exponential(np.exp(-risk)) * 20)  # with ties
    return times, rng.random(n) < 0.6, risk


def test_survival_is_lifelines() -> None:
    from lifelines import KaplanMeierFitter
    from lifelines.statistics import logrank_test
    from lifelines.utils import concordance_index, median_survival_times

    for seed in range(4):
        times, events, risk = survivors(seed)
        assert concordance(times, events, risk) == pytest.approx(
            concordance_index(times, -risk, events), abs=1e-12
        )
        group = risk > np.median(risk)
        expected = logrank_test(times[group], times[~group], events[group], events[~group]).p_value
        assert logrank_p(times, events, group) == pytest.approx(expected, abs=1e-9)
        curve, theirs = kaplan_meier(times, events), KaplanMeierFitter().fit(times, events)
        assert curve.survival == pytest.approx(
            theirs.survival_function_at_times(curve.times).to_numpy(), abs=1e-12
        )
        limits = theirs.confidence_interval_.loc[curve.times].to_numpy()
        inside = (curve.survival > 0) & (curve.survival < 1)
        assert np.stack([curve.low, curve.high], 1)[inside] == pytest.approx(
            limits[inside], abs=1e-6
        )
        median, low, high = median_survival(curve)
        assert median == theirs.median_survival_time_
        both = median_survival_times(theirs.confidence_interval_).to_numpy()[0]
        for mine, other in zip((low, high), both, strict=True):
            assert mine == other or (np.isnan(mine) and np.isinf(other))


def test_survival_refuses_what_would_be_nan() -> None:
    times, risk = np.arange(1.0, 6), np.arange(5.0)
    with pytest.raises(ValueError, match=r"no pair of the 5 subjects \(0 events\)"):
        concordance(times, np.zeros(5, bool), risk)
    with pytest.raises(
        ValueError, match="5 and 0 subjects with 5 events; a log-rank test needs two groups"
    ):
        logrank_p(times, np.ones(5, bool), np.ones(5, bool))
    never = kaplan_meier(times, np.array([True, False, False, False, False]))
    assert all(np.isnan(v) for v in median_survival(never)[::2])
    with pytest.raises(ValueError, match="no subject"):
        kaplan_meier(np.zeros(0), np.zeros(0, bool))


def test_wilcoxon_is_scipys_and_bears_equal_cases() -> None:
    first, second = RNG(0).random((2, 12))
    assert wilcoxon_p(first, second) == stats.wilcoxon(first, second).pvalue
    assert wilcoxon_p(first, first) == 1.0
    assert wilcoxon_p(np.r_[first, 1.0], np.r_[second, 1.0]) == pytest.approx(
        stats.wilcoxon(first, second).pvalue, abs=0.1
    )
    assert wilcoxon_p(np.zeros(1), np.ones(1)) == 1.0


def test_effect_sizes() -> None:
    first = np.zeros(4)
    assert rank_biserial(first, np.array([1.0, 2.0, 3.0, 4.0])) == 1.0
    assert rank_biserial(first, np.array([-1.0, 2.0, -3.0, 4.0])) == pytest.approx((6 - 4) / 10)
    assert rank_biserial(first, np.array([0.0, 0.0, 0.0, -4.0])) == -1.0
    assert rank_biserial(first, first) == 0.0
    assert cohen_dz(first, np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(
        2.5 / np.std([1, 2, 3, 4], ddof=1)
    )
    assert np.isnan(cohen_dz(first, first + 1))
    other = RNG(1).random(4)
    assert rank_biserial(first, other) == -rank_biserial(other, first)


def test_the_means_permutation_test_is_the_general_one() -> None:
    first, second = RNG(3).random((2, 30)) + np.array([[0.0], [0.15]])
    general = permutation_p(lambda o: float(o.mean()), first, second)
    assert mean_permutation_p(first, second) == pytest.approx(general, abs=0.02)
    assert mean_permutation_p(np.zeros(4), np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(
        2 / 16
    )  # all 16 ways
    assert mean_permutation_p(first, first) == 1.0
