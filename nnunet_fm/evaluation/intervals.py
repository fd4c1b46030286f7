"""Bootstrap confidence intervals over subjects, stratified and bias-corrected (Efron, JASA 1987)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer, Shaped
from scipy import stats

from nnunet_fm.internal.errors import InputError

Weights = Float[np.ndarray, "b n"]  # how often each of n cases counts, in each of b resamples
Statistic = Callable[[Weights], Float[np.ndarray, " b"]]
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A statistic of all subjects, the limits of its confidence interval, and how they were found."""

    value: float
    low: float
    high: float
    method: str
    level: float = 0.95
    resamples: int = 0


class Bootstrap:
    """BCa intervals of statistics of the same cases, all from the same resamples of subjects.

    Args:
        subjects: whom each case is of; a subject is drawn with all of its cases.
        strata: of each case, e.g. its class: subjects are drawn again within those whose cases are
            of the same strata, so that none is ever empty.
        resamples: how many.
        seed: of the draw.

    Raises:
        ValueError: fewer than two subjects.
    """

    def __init__(
        self,
        subjects: Shaped[np.ndarray, " n"],
        strata: Shaped[np.ndarray, " n"] | None = None,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        names, of_case = np.unique(subjects, return_inverse=True)
        if len(names) < 2:
            raise InputError(f"{len(names)} subjects; an interval needs 2 or more")
        groups = _alike(of_case, len(names), strata)
        self.method = "BCa" if strata is None else "stratified BCa"
        rng = np.random.default_rng(seed)
        drawn = np.zeros((resamples, len(names)))
        for group in groups:
            places = rng.integers(len(group), size=(resamples, len(group)))
            places += len(group) * np.arange(resamples)[:, None]
            times = np.bincount(places.ravel(), minlength=places.size)
            drawn[:, group] = times.reshape(places.shape)
        left_out = np.concatenate([g for g in groups if len(g) > 1] or [np.arange(0)])
        without_one = np.ones((len(left_out), len(names)))
        without_one[np.arange(len(left_out)), left_out] = 0
        self.everybody = np.ones((1, len(subjects)))
        self.drawn, self.without_one = drawn[:, of_case], without_one[:, of_case]

    def interval(self, statistic: Statistic, level: float = 0.95) -> Interval:
        """A statistic and its limits.

        Args:
            statistic: of weighted cases, for all resamples at once; NaN where it has no value.
            level: of confidence.

        Returns:
            Limits over the resamples in which the statistic has a value; where that is always the
            same, it twice.
        """
        drawn, jackknife = (
            statistic(self.drawn),
            statistic(self.without_one) if len(self.without_one) else np.zeros(1),
        )
        finite, value = jackknife[np.isfinite(jackknife)], float(statistic(self.everybody)[0])
        low, high = bca_limits(drawn[np.isfinite(drawn)], value, finite, level)
        return Interval(value, low, high, self.method, level, len(self.drawn))


def _alike(
    of_case: Integer[np.ndarray, " n"], count: int, strata: Shaped[np.ndarray, " n"] | None
) -> list[Integer[np.ndarray, "..."]]:
    """Numbers of the subjects of each stratum."""
    if strata is None:
        return [np.arange(count)]
    kinds: list[set[object]] = [set() for _ in range(count)]
    for subject, stratum in zip(of_case.tolist(), strata.tolist(), strict=True):
        kinds[subject].add(stratum)
    groups: dict[frozenset[object], list[int]] = {}
    for subject, kind in enumerate(kinds):
        groups.setdefault(frozenset(kind), []).append(subject)
    return [np.array(g) for g in groups.values()]


def bca_limits(
    drawn: Float[np.ndarray, " b"],
    estimate: float,
    jackknife: Float[np.ndarray, " j"],
    level: float,
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
    below = (
        (drawn < estimate).mean() + (drawn <= estimate).mean()
    ) / 2  # ties count half, as in scipy
    edge = 0.5 / len(drawn)  # an estimate outside all resamples has no finite correction
    bias = stats.norm.ppf(np.clip(below, edge, 1 - edge))
    deviations = jackknife.mean() - jackknife
    spread = (deviations**2).sum() ** 1.5
    acceleration = (deviations**3).sum() / (6 * spread) if spread else 0.0
    limits = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        z = bias + stats.norm.ppf(tail)
        limits.append(
            float(np.percentile(drawn, 100 * stats.norm.cdf(bias + z / (1 - acceleration * z))))
        )
    return limits[0], limits[1]
