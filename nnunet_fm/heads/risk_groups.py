"""High and low risk: groups by the training cases' median, their survival and its test (BrainDINO, 4.3.4)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from nnunet_fm.evaluation.survival import Curve, kaplan_meier, logrank_p, median_survival


@dataclass(frozen=True)
class RiskGroups:
    """Of the tested subjects.

    Attributes:
        high, low: Kaplan-Meier curves; None where a group is empty.
        p: of the log-rank test; NaN where it cannot be made.
        medians: time at which half of a group are left, with its limits, honouring censoring; NaN:
            not reached.
        counts: of both groups, high first.
    """

    high: Curve | None
    low: Curve | None
    p: float
    medians: dict[str, tuple[float, float, float]]
    counts: tuple[int, int]


def risk_groups(
    times: Float[np.ndarray, " n"], events: Bool[np.ndarray, " n"], high: Bool[np.ndarray, " n"]
) -> RiskGroups:
    """Compare those above the threshold with the others."""
    curves = {
        name: kaplan_meier(times[group], events[group]) if group.any() else None
        for name, group in (("high", high), ("low", ~high))
    }
    try:
        p = logrank_p(times, events, high)
    except ValueError:  # everybody on one side
        p = float("nan")
    nothing = (float("nan"),) * 3
    medians = {name: median_survival(curve) if curve else nothing for name, curve in curves.items()}
    return RiskGroups(
        curves["high"], curves["low"], p, medians, (int(high.sum()), int((~high).sum()))
    )
