"""Paired tests against scipy's and statsmodels'."""

import numpy as np
import pytest
from scipy import stats

from nnunet_fm.evaluation.paired_tests import (
    adjust_by_family,
    benjamini_hochberg,
    cohen_dz,
    holm,
    mcnemar_p,
    mean_permutation_p,
    permutation_p,
    rank_biserial,
    wilcoxon_p,
)

RNG = np.random.default_rng
pytestmark = pytest.mark.usefixtures("third_party_warnings")


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


def test_wilcoxon_equals_scipys_and_accepts_equal_cases() -> None:
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
    assert np.isnan(cohen_dz(np.zeros(3), np.full(3, 0.1)))  # 0.1 is not exact
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


def test_p_is_adjusted_within_its_family_and_nan_counts_for_none() -> None:
    p = [0.01, 0.04, float("nan"), 0.03, 0.02]
    families = ["a", "a", "a", "b", "a"]
    of_a = [0, 1, 4]
    for adjustment in (holm, benjamini_hochberg):
        adjusted = adjust_by_family(p, families, adjustment)
        expected = adjustment([p[n] for n in of_a])
        assert [adjusted[n] for n in of_a] == pytest.approx(expected, abs=1e-15)
        assert adjusted[3] == 0.03
        assert np.isnan(adjusted[2])


def test_the_cases_of_a_subject_are_swapped_together() -> None:
    subjects = np.repeat(np.arange(12), 4)  # four cases with equal outputs are one observation
    values = RNG(0).standard_normal(12)
    swapped = permutation_p(
        lambda o: float(o.mean()), values[subjects] * 0, values[subjects] + 1, subjects=subjects
    )
    alone = permutation_p(lambda o: float(o.mean()), values[subjects] * 0, values[subjects] + 1)
    assert swapped > 2 * alone
