"""Metrics of survival models: concordance, Kaplan-Meier curves and medians, the log-rank test (BrainDINO, 4.3.5)."""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy import stats

from nnunet_fm.evaluation.intervals import Weights
from nnunet_fm.internal.errors import InputError

Times = Float[np.ndarray, " n"]
Events = Bool[np.ndarray, " n"]
Labels = Integer[np.ndarray, " n"]


@dataclass(frozen=True)
class Curve:
    """Kaplan-Meier estimate: at each time the share that survives beyond it, with pointwise log-log limits."""

    times: Float[np.ndarray, " t"]
    survival: Float[np.ndarray, " t"]
    low: Float[np.ndarray, " t"]
    high: Float[np.ndarray, " t"]


def concordance(times: Times, events: Events, risk: Float[np.ndarray, " n"]) -> float:
    """Harrell's C-index: of comparable pairs, the share in which who has the event first has the higher risk.

    A pair is comparable if the earlier time is an event; of equal times, if one is an event and the
    other is censored. Equal risks count half.

    Raises:
        ValueError: no pair is comparable (all censored, say).
    """
    everybody = np.ones((1, len(times)))
    return float(weighted_concordance(times, events, risk, everybody)[0])


def weighted_concordance(
    times: Times,
    events: Events,
    risk: Float[np.ndarray, " n"],
    weights: Weights,
    fold: Labels | None = None,
) -> Float[np.ndarray, " b"]:
    """`concordance` of weighted subjects, for many sets of weights at once.

    Args:
        times: until the event or the last visit.
        events: whether it was an event.
        risk: predicted; larger for sooner.
        weights: how often each subject counts; NaN comes back where they leave no pair.
        fold: of cross-validation: only subjects of one fold, whose risks one model gave, are
            compared.

    Raises:
        ValueError: no pair is comparable (all censored, say).
    """
    sooner = (times[:, None] < times[None]) | ((times[:, None] == times[None]) & ~events[None])
    comparable = events[:, None] & sooner
    np.fill_diagonal(comparable, False)
    if fold is not None:
        comparable &= fold[:, None] == fold[None]
    higher, equal = risk[:, None] > risk[None], risk[:, None] == risk[None]
    pairs = ((weights @ comparable) * weights).sum(1)
    if not pairs.any():
        raise InputError(
            f"no pair of the {len(times)} subjects ({int(events.sum())} events) can be compared"
        )
    hits = ((weights @ (comparable * (higher + 0.5 * equal))) * weights).sum(1)
    return np.divide(hits, pairs, out=np.full_like(hits, np.nan), where=pairs > 0)


def kaplan_meier(times: Times, events: Events, level: float = 0.95) -> Curve:
    """Survival curve with limits on the log-log scale.

    Raises:
        ValueError: no subject.
    """
    if not len(times):
        raise InputError("no subject; a survival curve needs 1 or more")
    data = stats.CensoredData(uncensored=times[events], right=times[~events])
    function = stats.ecdf(data).sf
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # a curve at 1 or 0 has no limits on this scale: NaN says so
        limits = function.confidence_interval(level, method="log-log")
    return Curve(
        function.quantiles,
        function.probabilities,
        limits.low.probabilities,
        limits.high.probabilities,
    )


def median_survival(curve: Curve) -> tuple[float, float, float]:
    """Time at which half are left, and its limits from the curve's; NaN where a curve does not come down that far."""

    def crossing(survival: Float[np.ndarray, " t"]) -> float:
        reached = np.flatnonzero(
            survival <= 0.5
        )  # NaN (a curve at 1 has no log-log limit) is no crossing
        return float(curve.times[reached[0]]) if len(reached) else float("nan")

    return crossing(curve.survival), crossing(curve.low), crossing(curve.high)


def logrank_p(times: Times, events: Events, group: Bool[np.ndarray, " n"]) -> float:
    """Two-sided p of the log-rank test between those in the group and the others.

    Raises:
        ValueError: a group is empty, or there is no event.
    """
    if group.all() or not group.any() or not events.any():
        raise InputError(
            f"{int(group.sum())} and {int((~group).sum())} subjects with {int(events.sum())} events; "
            "a log-rank test needs two groups and an event"
        )
    sides = [
        stats.CensoredData(uncensored=times[s & events], right=times[s & ~events])
        for s in (group, ~group)
    ]
    return float(stats.logrank(*sides).pvalue)
