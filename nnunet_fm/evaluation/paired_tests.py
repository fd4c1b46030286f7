"""Paired tests of two encoders on the same subjects, effect sizes and adjusted p-values.

Source: BrainDINO, section 4.5. Wilcoxon's test over bootstrap resamples is deliberately absent: it
rejects the hypothesis of equal models every time.
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import stats

RESAMPLES = 5000
ROUNDING = 1e-12  # relative; differences that are equal up to this tie
PerCase = Float[np.ndarray, " n"]
Adjustment = Callable[[Sequence[float]], Float[np.ndarray, " m"]]


def permutation_p(
    statistic: Callable[[Shaped[np.ndarray, "n ..."]], float],
    first: Shaped[np.ndarray, "n ..."],
    second: Shaped[np.ndarray, "n ..."],
    resamples: int = RESAMPLES,
    seed: int = 0,
    subjects: Shaped[np.ndarray, " n"] | None = None,
) -> float:
    """Test the difference of a statistic by swapping each subject's two outputs at random.

    Args:
        statistic: function of one model's outputs for all cases, in their order.
        first: outputs of the first model, one row per case.
        second: outputs of the second model.
        resamples: number of random swaps.
        seed: seed of the swaps.
        subjects: subject of each row; the rows of a subject are swapped together. If None, each row
            is a subject of its own.

    Returns:
        Two-sided p: (hits + 1) / (resamples + 1), so never 0.
    """
    rng = np.random.default_rng(seed)
    of_row = np.arange(len(first))
    if subjects is not None:
        of_row = np.unique(subjects, return_inverse=True)[1]
    observed = abs(statistic(second) - statistic(first))
    rounding = ROUNDING * (abs(statistic(second)) + abs(statistic(first)))
    hits = 0
    for _ in range(resamples):
        swap = (rng.random(of_row.max() + 1) < 0.5)[of_row]
        swap = swap.reshape(-1, *[1] * (first.ndim - 1))
        swapped_first = np.where(swap, second, first)
        swapped_second = np.where(swap, first, second)
        hits += abs(statistic(swapped_second) - statistic(swapped_first)) >= observed - rounding
    return (hits + 1) / (resamples + 1)


def wilcoxon_p(first: PerCase, second: PerCase) -> float:
    """Compute the two-sided p of Wilcoxon's signed-rank test; equal cases are unused.

    Exact up to 50 cases without ties, else the normal approximation (scipy). 1 if no case differs.
    """
    differences = _differences(first, second)
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences, zero_method="wilcox").pvalue)


def _differences(first: PerCase, second: PerCase) -> PerCase:
    """Subtract without rounding errors, so that 0.3 - 0.2 and 0.2 - 0.1 tie."""
    largest = max(np.abs(first).max(initial=0), np.abs(second).max(initial=0))
    step = ROUNDING * (largest or 1.0)
    rounded: PerCase = np.round((second - first) / step) * step
    return rounded


def rank_biserial(first: PerCase, second: PerCase) -> float:
    """Compute the effect size of Wilcoxon's test, -1 to 1.

    It is the share of the ranks in favour of the second minus that in favour of the first.
    """
    differences = _differences(first, second)
    differences = differences[differences != 0]
    if not len(differences):
        return 0.0
    ranks = stats.rankdata(np.abs(differences))
    return float((ranks * np.sign(differences)).sum() / ranks.sum())


def cohen_dz(first: PerCase, second: PerCase) -> float:
    """Compute Cohen's dz: mean difference over the differences' deviation; NaN where that is 0."""
    differences = _differences(first, second)
    deviation = differences.std(ddof=1) if len(differences) > 1 else 0.0
    rounding = ROUNDING * np.abs(differences).max(initial=0)  # what equal differences may leave
    return float(differences.mean() / deviation) if deviation > rounding else float("nan")


def mean_permutation_p(
    first: PerCase, second: PerCase, resamples: int = RESAMPLES, seed: int = 0
) -> float:
    """Compute `permutation_p` of the mean with scipy; exact where few swaps are possible."""
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
    """Compute the exact two-sided p of McNemar's test; 1 if the classifiers never differ.

    Args:
        first: whether the first classifier is right, for each case.
        second: whether the second classifier is right.
    """
    only_first = int((first & ~second).sum())
    only_second = int((~first & second).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)


def holm(p: Sequence[float]) -> Float[np.ndarray, " m"]:
    """Adjust p-values after Holm: the chance of any false rejection in the family."""
    values = np.asarray(p, float)
    order = np.argsort(values)
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1, stepped)
    return adjusted


def benjamini_hochberg(p: Sequence[float]) -> Float[np.ndarray, " m"]:
    """Adjust p-values after Benjamini and Hochberg: the expected share of false rejections."""
    adjusted: np.ndarray = stats.false_discovery_control(np.asarray(p, float))
    return adjusted


def adjust_by_family(
    p: Sequence[float], families: Sequence[Hashable], adjustment: Adjustment = holm
) -> list[float]:
    """Adjust p-values within each family of tests.

    Args:
        p: p-values; NaN marks a test that could not be made, which counts for no family.
        families: family of each p-value, e.g. (task, model, metric).
        adjustment: `holm` or `benjamini_hochberg`.

    Returns:
        Adjusted p-values in the given order; NaN stays NaN.

    Example:
        >>> adjust_by_family([0.01, 0.04, 0.03], ["Dice", "Dice", "HD95"])
        [0.02, 0.04, 0.03]
    """
    members: dict[Hashable, list[int]] = {}
    for number, family in enumerate(families):
        if np.isfinite(p[number]):
            members.setdefault(family, []).append(number)
    adjusted = [float(value) for value in p]
    for numbers in members.values():
        values = adjustment([p[number] for number in numbers])
        for number, value in zip(numbers, values, strict=True):
            adjusted[number] = float(value)
    return adjusted
