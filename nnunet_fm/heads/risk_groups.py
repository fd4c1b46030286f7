"""High and low risk: groups split at the training cases' median risk, and their survival.

Source: BrainDINO, section 4.3.4.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from nnunet_fm.evaluation.survival import Curve, kaplan_meier, logrank_p, median_survival


@dataclass(frozen=True)
class RiskGroup:
    """The tested subjects of one group.

    Attributes:
        name: `high` or `low`.
        count: number of subjects.
        curve: Kaplan-Meier curve; None if the group is empty.
        median: median survival time with its lower and upper limit; NaN where not reached.
    """

    name: str
    count: int
    curve: Curve | None
    median: tuple[float, float, float]


@dataclass(frozen=True)
class RiskGroups:
    """Both groups, and the two-sided p of the log-rank test; NaN if it cannot be made."""

    high: RiskGroup
    low: RiskGroup
    p: float


def risk_groups(
    times: Float[np.ndarray, " n"], events: Bool[np.ndarray, " n"], high: Bool[np.ndarray, " n"]
) -> RiskGroups:
    """Compare the survival of two groups.

    Args:
        times: time until the event or the last visit.
        events: whether the time ends with an event.
        high: whether the risk is above the threshold.
    """
    try:
        p = logrank_p(times, events, high)
    except ValueError:  # all subjects are in one group
        p = float("nan")
    return RiskGroups(
        _risk_group("high", times[high], events[high]),
        _risk_group("low", times[~high], events[~high]),
        p,
    )


def _risk_group(
    name: str, times: Float[np.ndarray, " n"], events: Bool[np.ndarray, " n"]
) -> RiskGroup:
    if not len(times):
        nan = float("nan")
        return RiskGroup(name, 0, None, (nan, nan, nan))
    curve = kaplan_meier(times, events)
    return RiskGroup(name, len(times), curve, median_survival(curve))
