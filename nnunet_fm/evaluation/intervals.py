"""Bootstrap confidence intervals over subjects, stratified and bias-corrected (Efron, JASA 1987)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer, Shaped
from scipy import stats

Rows = Integer[np.ndarray, " r"]
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """Limits of a confidence interval, and how they were found."""

    low: float
    high: float
    method: str
    level: float = 0.95
    resamples: int = 0


def bootstrap_interval(
    statistic: Callable[[Rows], float],
    count: int,
    strata: Shaped[np.ndarray, " n"] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """BCa interval of a statistic of `count` subjects.

    Args:
        statistic: of the subjects with the given numbers; a subject may come several times.
        count: number of subjects.
        strata: subjects are drawn again within each stratum, e.g. the class, so that none is ever empty.
        level: of confidence.
        resamples: of the bootstrap.
        seed: of the draw.

    Returns:
        Limits; where the statistic is the same in every resample, that value twice.

    Raises:
        ValueError: fewer than two subjects.
    """
    if count < 2:
        raise ValueError(f"{count} subjects; an interval needs 2 or more")
    groups = [np.arange(count)] if strata is None else [np.flatnonzero(strata == s) for s in np.unique(strata)]
    rng = np.random.default_rng(seed)
    draws = (np.concatenate([g[rng.integers(len(g), size=len(g))] for g in groups]) for _ in range(resamples))
    drawn = np.array([statistic(rows) for rows in draws])
    everybody = np.arange(count)
    left_out = [everybody[everybody != i] for g in groups if len(g) > 1 for i in g]
    jackknife = np.array([statistic(rows) for rows in left_out])
    low, high = bca_limits(drawn, statistic(everybody), jackknife, level)
    return Interval(low, high, "BCa" if strata is None else "stratified BCa", level, resamples)


def bca_limits(
    drawn: Float[np.ndarray, " b"], estimate: float, jackknife: Float[np.ndarray, " j"], level: float
) -> tuple[float, float]:
    """Bias-corrected and accelerated percentiles.

    Args:
        drawn: the statistic in each resample.
        estimate: the statistic itself.
        jackknife: the statistic without each subject in turn.
        level: of confidence.
    """
    if np.ptp(drawn) == 0:
        return float(drawn[0]), float(drawn[0])
    below = ((drawn < estimate).mean() + (drawn <= estimate).mean()) / 2  # ties count half, as in scipy
    edge = 0.5 / len(drawn)  # an estimate outside all resamples has no finite correction
    bias = stats.norm.ppf(np.clip(below, edge, 1 - edge))
    deviations = jackknife.mean() - jackknife
    spread = (deviations**2).sum() ** 1.5
    acceleration = (deviations**3).sum() / (6 * spread) if spread else 0.0
    limits = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        z = bias + stats.norm.ppf(tail)
        limits.append(float(np.percentile(drawn, 100 * stats.norm.cdf(bias + z / (1 - acceleration * z)))))
    return limits[0], limits[1]
