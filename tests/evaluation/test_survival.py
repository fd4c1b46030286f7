"""Survival metrics against lifelines'."""

import numpy as np
import pytest

from nnunet_fm.evaluation.survival import (
    concordance,
    kaplan_meier,
    logrank_p,
    median_survival,
    weighted_concordance,
)

RNG = np.random.default_rng
pytestmark = pytest.mark.usefixtures("third_party_warnings")


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


def test_weighted_concordances_are_those_of_repeated_cases_and_compare_within_folds() -> None:
    rng = RNG(0)
    risk = np.round(rng.standard_normal(30), 1)  # with ties
    times, events = np.ceil(rng.exponential(5, 30)), rng.random(30) < 0.6
    weights = rng.integers(0, 4, (5, 30)).astype(float)
    indices = weighted_concordance(times, events, risk, weights)
    for row, index in zip(weights, indices, strict=True):
        again = np.repeat(np.arange(30), row.astype(int))
        expected = concordance(times[again], events[again], risk[again])
        assert index == pytest.approx(expected, abs=1e-12)
    fold, ones = np.arange(30) % 3, np.ones((1, 30))
    shifted = risk + 100 * fold  # what one fold's model says of another's cases does not matter
    apart = weighted_concordance(times, events, shifted, ones, fold)
    assert apart == pytest.approx(weighted_concordance(times, events, risk, ones, fold))
