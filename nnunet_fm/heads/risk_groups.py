"""High and low risk: groups split at the training cases' median risk, and their survival.

Source: BrainDINO, section 4.3.4.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from nnunet_fm.evaluation.survival import Curve, kaplan_meier, logrank_p, median_survival
from nnunet_fm.heads.metrics import TrueTargets


@dataclass(frozen=True)
class RiskGroup:
    """The tested subjects of one group.

    Attributes:
        name: `high` or `low`.
        times: time until the event or the last visit of each subject.
        curve: Kaplan-Meier curve; None if the group is empty.
        median: median survival time with its lower and upper limit; NaN where not reached.
    """

    name: str
    times: Float[np.ndarray, " n"]
    curve: Curve | None
    median: tuple[float, float, float]

    @property
    def count(self) -> int:
        """Number of subjects."""
        return len(self.times)


@dataclass(frozen=True)
class RiskGroups:
    """Both groups, and the two-sided p of the log-rank test; NaN if it cannot be made."""

    high: RiskGroup
    low: RiskGroup
    p: float


def risk_groups(truth: TrueTargets, is_high: Bool[np.ndarray, " n"]) -> RiskGroups:
    """Compare the survival of two groups, in which each subject counts once, with its first case.

    Args:
        truth: times and events of the tested cases.
        is_high: whether the risk of each case is above the threshold.
    """
    first = truth.first_cases
    times = truth.values[first]
    events = truth.events[first]
    high = is_high[first]
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
        return RiskGroup(name, times, None, (nan, nan, nan))
    curve = kaplan_meier(times, events)
    return RiskGroup(name, times, curve, median_survival(curve))
