"""Losses of the heads that torch does not have (BrainDINO, equations 9 and 11)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import huber_loss


def cox_loss(
    risk: Float[Tensor, " n"], times: Float[Tensor, " n"], events: Bool[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Compute the negative Cox partial log-likelihood divided by the number of events.

    Equation 11; ties are handled after Breslow.

    Args:
        risk: log hazard ratio of each subject.
        times: time until the event or the last visit.
        events: whether the time ends with an event.

    Returns:
        The loss; 0, with a gradient of 0, if there is no event.
    """
    order = torch.argsort(times, descending=True)
    risk, times, events = risk[order], times[order], events[order]
    at_risk = torch.logcumsumexp(risk, 0)  # over all subjects whose time is not shorter
    last_of_tie = torch.searchsorted(-times, -times, right=True) - 1
    return (at_risk[last_of_tie] - risk)[events].sum() / events.sum().clamp(min=1)


def stroke_days_loss(
    predicted: Float[Tensor, " n"], truth: Float[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Compute 0.2 squared + 0.4 absolute + 0.4 Huber error (delta 1), equation 9.

    Args:
        predicted: predicted log(1 + days).
        truth: true log(1 + days).
    """
    error = predicted - truth
    huber = huber_loss(predicted, truth, delta=1.0)
    return 0.2 * (error**2).mean() + 0.4 * error.abs().mean() + 0.4 * huber
