"""Bootstrap intervals against scipy's, and their coverage."""

from functools import partial

import numpy as np
import pytest
from scipy import stats

from nnunet_fm.evaluation.classification import weighted_auc
from nnunet_fm.evaluation.intervals import (
    Bootstrap,
    bca_limits,
    difference,
    mean_limits,
    weighted_mean,
)

RNG = np.random.default_rng
pytestmark = pytest.mark.usefixtures("third_party_warnings")


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
        interval = Bootstrap(np.arange(40), truth, 400, seed).interval(
            partial(weighted_auc, truth, scores)
        )
        hits += interval.low <= true <= interval.high
    assert hits / 150 > 0.89
    assert interval.method == "stratified BCa"
    rare = np.array([1] + [0] * 30)
    assert (
        Bootstrap(np.arange(31), rare, 200)
        .interval(partial(weighted_auc, rare, np.arange(31.0)))
        .low
        >= 0
    )
    same = Bootstrap(np.arange(10), resamples=50).interval(lambda w: np.full(len(w), 0.5))
    assert (same.low, same.high) == (0.5, 0.5)
    with pytest.raises(ValueError, match="1 subject; an interval needs 2 or more"):
        Bootstrap(np.zeros(5))


def test_limits_of_a_mean_and_of_a_change_are_those_of_the_bootstrap() -> None:
    before, after = RNG(0).random((2, 12))
    bootstrap = Bootstrap(np.arange(12))
    interval = bootstrap.interval(weighted_mean(after))
    assert mean_limits(after) == (interval.low, interval.high)
    assert interval.value == pytest.approx(after.mean())
    assert np.isnan(mean_limits(after[:1])).all()
    change = bootstrap.change(weighted_mean(before), weighted_mean(after))
    assert (change.value, change.low, change.high) == (interval.value, interval.low, interval.high)
    minus = bootstrap.interval(difference(weighted_mean(before), weighted_mean(after)))
    assert (change.change, change.change_low, change.change_high) == (
        minus.value,
        minus.low,
        minus.high,
    )
    assert change.change == pytest.approx(after.mean() - before.mean())


def test_intervals_of_few_subjects_are_student_s_t() -> None:
    values = RNG(0).random(7)
    interval = Bootstrap(np.arange(7)).interval(weighted_mean(values))
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high))
    assert interval.method == "Student's t"
    assert Bootstrap(np.arange(15)).method == "BCa"
    assert Bootstrap(np.arange(14), np.arange(14) % 2).method.endswith("less than 95 %")
    sure = Bootstrap(np.arange(7)).interval(weighted_mean(np.ones(7)))
    assert (sure.low, sure.method) == (1, "none: the same in all resamples")


def test_intervals_of_few_subjects_contain_the_true_mean() -> None:
    hits = 0
    for seed in range(400):
        low, high = mean_limits(RNG(seed).beta(8, 2, 7))
        hits += low <= 0.8 <= high
    assert 0.91 < hits / 400 < 0.98  # BCa: 0.82
