"""Intervals of the metrics of heads."""

from functools import partial

import numpy as np
import pytest
from scipy import stats

from nnunet_fm.heads.metrics import TrueTargets

RNG = np.random.default_rng


@pytest.mark.parametrize("positives", [5, 10])
def test_limits_cover_if_folds_hold_few_cases_of_a_class(positives: int) -> None:
    hits, true = 0, stats.norm.cdf(1 / np.sqrt(2))
    for seed in range(100):
        values = (np.arange(60) < positives).astype(float)
        scores = values + RNG(seed).standard_normal(60)
        tested = TrueTargets("classification", values, values > 0, np.arange(60), np.arange(60) % 5)
        output = np.stack([-scores, scores], axis=1)
        interval = tested.bootstrap(400).interval(partial(tested.metrics()["AUC"], output))
        hits += interval.low <= true <= interval.high
    assert hits / 100 > 0.88
