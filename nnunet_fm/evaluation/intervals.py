"""Bootstrap confidence intervals over subjects, stratified and bias-corrected (Efron, JASA 1987)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from scipy import stats

Weights = Float[np.ndarray, "b n"]  # how often each of n subjects counts, in each of b resamples
Statistic = Callable[[Weights], Float[np.ndarray, " b"]]
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """Limits of a confidence interval, and how they were found."""

    low: float
    high: float
    method: str
    level: float = 0.95
    resamples: int = 0


class Bootstrap:
    """BCa intervals of statistics of the same subjects, all from the same resamples.

    Args:
        count: number of subjects.
        strata: subjects are drawn again within each stratum, e.g. the class, so that none is ever empty.
        resamples: how many.
        seed: of the draw.

    Raises:
        ValueError: fewer than two subjects.
    """

    def __init__(
        self,
        count: int,
        strata: Shaped[np.ndarray, " n"] | None = None,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        if count < 2:
            raise ValueError(f"{count} subjects; an interval needs 2 or more")
        groups = [np.arange(count)] if strata is None else [np.flatnonzero(strata == s) for s in np.unique(strata)]
        self.method = "BCa" if strata is None else "stratified BCa"
        rng = np.random.default_rng(seed)
        self.everybody = np.ones((1, count))
        self.drawn = np.zeros((resamples, count))
        for group in groups:
            places = rng.integers(len(group), size=(resamples, len(group)))
            places += len(group) * np.arange(resamples)[:, None]
            times = np.bincount(places.ravel(), minlength=places.size)
            self.drawn[:, group] = times.reshape(places.shape)
        left_out = np.concatenate([g for g in groups if len(g) > 1] or [np.arange(0)])
        self.without_one = np.ones((len(left_out), count))
        self.without_one[np.arange(len(left_out)), left_out] = 0

    def interval(self, statistic: Statistic, level: float = 0.95) -> Interval:
        """Limits of a statistic.

        Args:
            statistic: of weighted subjects, for all resamples at once; NaN where it has no value.
            level: of confidence.

        Returns:
            Limits over the resamples in which the statistic has a value; where that is always the same, it twice.
        """
        drawn, jackknife = statistic(self.drawn), statistic(self.without_one) if len(self.without_one) else np.zeros(1)
        finite = jackknife[np.isfinite(jackknife)]
        low, high = bca_limits(drawn[np.isfinite(drawn)], float(statistic(self.everybody)[0]), finite, level)
        return Interval(low, high, self.method, level, len(self.drawn))


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
