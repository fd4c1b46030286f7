"""Two encoders on the same subjects: paired tests, and what to do with many of them (BrainDINO, section 4.5).

Wilcoxon's test over bootstrap resamples is not here: it rejects equal models every time.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import stats

RESAMPLES = 5000
PerCase = Float[np.ndarray, " n"]


def permutation_p(
    statistic: Callable[[Shaped[np.ndarray, "n ..."]], float],
    first: Shaped[np.ndarray, "n ..."],
    second: Shaped[np.ndarray, "n ..."],
    resamples: int = RESAMPLES,
    seed: int = 0,
    subjects: Shaped[np.ndarray, " n"] | None = None,
) -> float:
    """Two-sided p of the difference of a statistic: each subject's two outputs are swapped at random.

    Args:
        statistic: of one model's outputs for all rows, in their order.
        first: outputs of a model, a row per case.
        second: of the other.
        resamples: random swaps; p is (hits + 1) / (resamples + 1), so never 0.
        seed: of the swaps.
        subjects: whom each row is of; a subject's rows are swapped together. Each its own if None.
    """
    rng = np.random.default_rng(seed)
    of_row = (
        np.arange(len(first)) if subjects is None else np.unique(subjects, return_inverse=True)[1]
    )
    observed = abs(statistic(second) - statistic(first))
    hits = 0
    for _ in range(resamples):
        swap = (rng.random(of_row.max() + 1) < 0.5)[of_row]
        swap = swap.reshape(-1, *[1] * (first.ndim - 1))
        one, other = np.where(swap, second, first), np.where(swap, first, second)
        hits += abs(statistic(other) - statistic(one)) >= observed - 1e-12
    return (hits + 1) / (resamples + 1)


def wilcoxon_p(first: PerCase, second: PerCase) -> float:
    """Two-sided Wilcoxon signed-rank test of per-case values; cases without a difference are left out.

    Exact up to 50 cases without ties, else the normal approximation (scipy). 1 if no case differs.
    """
    differences = second - first
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences, zero_method="wilcox").pvalue)


def rank_biserial(first: PerCase, second: PerCase) -> float:
    """Effect size of Wilcoxon's test: share of the ranks in favour of the second minus that of the first, -1 to 1."""
    differences = (second - first)[second != first]
    if not len(differences):
        return 0.0
    ranks = stats.rankdata(np.abs(differences))
    return float((ranks * np.sign(differences)).sum() / ranks.sum())


def cohen_dz(first: PerCase, second: PerCase) -> float:
    """Mean difference over the standard deviation of the differences; NaN where they are all equal."""
    differences = second - first
    deviation = differences.std(ddof=1) if len(differences) > 1 else 0.0
    return float(differences.mean() / deviation) if deviation > 0 else float("nan")


def mean_permutation_p(
    first: PerCase, second: PerCase, resamples: int = RESAMPLES, seed: int = 0
) -> float:
    """`permutation_p` of the mean, by scipy: all swaps at once, and every possible one where these are few."""
    result = stats.permutation_test(
        (first, second),
        lambda one, two, axis: (two - one).mean(axis=axis),
        permutation_type="samples",
        n_resamples=resamples,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def mcnemar_p(first: Bool[np.ndarray, " n"], second: Bool[np.ndarray, " n"]) -> float:
    """Exact two-sided McNemar test of which cases two classifiers get right; 1 if they never differ."""
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)


def holm(p: Sequence[float]) -> Float[np.ndarray, " m"]:
    """Holm's adjusted p-values, in the given order: the chance of any false rejection in the family."""
    values = np.asarray(p, float)
    order = np.argsort(values)
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1, stepped)
    return adjusted


def benjamini_hochberg(p: Sequence[float]) -> Float[np.ndarray, " m"]:
    """Benjamini and Hochberg's adjusted p-values, in the given order: the expected share of false rejections."""
    adjusted: np.ndarray = stats.false_discovery_control(np.asarray(p, float))
    return adjusted
