"""Metrics of survival models: concordance, Kaplan-Meier curves and medians, the log-rank test.

Source: BrainDINO, section 4.3.5.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy import stats

from nnunet_fm.evaluation.intervals import Weights
from nnunet_fm.internal.errors import InputError

ROUNDING = 1e-9
Times = Float[np.ndarray, " n"]
Events = Bool[np.ndarray, " n"]
Labels = Integer[np.ndarray, " n"]


@dataclass(frozen=True)
class Curve:
    """Kaplan-Meier estimate of a survival curve.

    Attributes:
        times: times at which the curve changes, ascending.
        survival: share that survives beyond each time.
        low: pointwise lower limits on the log-log scale.
        high: pointwise upper limits.
    """

    times: Float[np.ndarray, " t"]
    survival: Float[np.ndarray, " t"]
    low: Float[np.ndarray, " t"]
    high: Float[np.ndarray, " t"]


def concordance(times: Times, events: Events, risk: Float[np.ndarray, " n"]) -> float:
    """Compute Harrell's C-index.

    It is the share of comparable pairs in which the subject with the earlier event has the higher
    risk. A pair is comparable if the earlier time is an event; of equal times, if one is an event
    and the other is censored. Equal risks count half.

    Args:
        times: time until the event or the last visit.
        events: whether the time ends with an event.
        risk: predicted risk; larger for an earlier event.

    Raises:
        ValueError: no pair is comparable (all censored, say).
    """
    unit_weights = np.ones((1, len(times)))
    return float(weighted_concordance(times, events, risk, unit_weights)[0])


def weighted_concordance(
    times: Times,
    events: Events,
    risk: Float[np.ndarray, " n"],
    weights: Weights,
    fold: Labels | None = None,
) -> Float[np.ndarray, " b"]:
    """Compute `concordance` of weighted subjects, for many sets of weights at once.

    Args:
        times: time until the event or the last visit.
        events: whether the time ends with an event.
        risk: predicted risk; larger for an earlier event.
        weights: how often each subject counts.
        fold: cross-validation fold of each subject; subjects are compared only within a fold,
            because the risks of two models have no common scale.

    Returns:
        The C-index for each set of weights; NaN where the weights leave no comparable pair.

    Raises:
        ValueError: no pair is comparable (all censored, say).
    """
    sooner = (times[:, None] < times[None]) | ((times[:, None] == times[None]) & ~events[None])
    comparable = events[:, None] & sooner
    np.fill_diagonal(comparable, False)
    if fold is not None:
        comparable &= fold[:, None] == fold[None]
    higher = risk[:, None] > risk[None]
    equal = risk[:, None] == risk[None]
    pairs = ((weights @ comparable) * weights).sum(1)
    if not pairs.any():
        raise InputError(
            f"no pair of the {len(times)} subjects ({int(events.sum())} events) can be compared"
        )
    hits = ((weights @ (comparable * (higher + 0.5 * equal))) * weights).sum(1)
    return np.divide(hits, pairs, out=np.full_like(hits, np.nan), where=pairs > 0)


def kaplan_meier(times: Times, events: Events, level: float = 0.95) -> Curve:
    """Estimate a survival curve with limits on the log-log scale.

    Raises:
        ValueError: no subject.
    """
    if not len(times):
        raise InputError("no subject; a survival curve needs 1 or more")
    function = stats.ecdf(_censored(times, events)).sf
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at 1 and 0 the limits on this scale are NaN
        limits = function.confidence_interval(level, method="log-log")
    return Curve(
        function.quantiles,
        function.probabilities,
        limits.low.probabilities,
        limits.high.probabilities,
    )


def median_survival(curve: Curve) -> tuple[float, float, float]:
    """Find the median survival time and its lower and upper limit.

    NaN where the curve, or the curve of its limits, does not fall to one half.
    """
    return (
        _half_time(curve.times, curve.survival),
        _half_time(curve.times, curve.low),
        _half_time(curve.times, curve.high),
    )


def _half_time(times: Float[np.ndarray, " t"], survival: Float[np.ndarray, " t"]) -> float:
    # a share of exactly one half may be a rounding error above it; false for NaN
    reached = np.flatnonzero(survival <= 0.5 + ROUNDING)
    return float(times[reached[0]]) if len(reached) else float("nan")


def logrank_p(times: Times, events: Events, group: Bool[np.ndarray, " n"]) -> float:
    """Compute the two-sided p of the log-rank test between a group and the other subjects.

    Raises:
        ValueError: a group is empty, or there is no event.
    """
    if group.all() or not group.any() or not events.any():
        raise InputError(
            f"{int(group.sum())} and {int((~group).sum())} subjects with {int(events.sum())} "
            "events; a log-rank test needs two groups and an event"
        )
    inside = _censored(times[group], events[group])
    outside = _censored(times[~group], events[~group])
    return float(stats.logrank(inside, outside).pvalue)


def _censored(times: Times, events: Events) -> stats.CensoredData:
    return stats.CensoredData(uncensored=times[events], right=times[~events])
