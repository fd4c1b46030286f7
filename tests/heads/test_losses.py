"""Losses against their equations and torchsurv's."""

import warnings

import numpy as np
import pytest
import torch

from nnunet_fm.heads.losses import cox_loss, stroke_days_loss


def survivors(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    times = torch.from_numpy(np.ceil(rng.exponential(20, 60)))  # with ties
    return (
        torch.from_numpy(rng.standard_normal(60)).requires_grad_(),
        times,
        torch.from_numpy(rng.random(60) < 0.6),
    )


def test_the_cox_loss_is_equation_11_and_torchsurv_s() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchsurv.loss.cox import neg_partial_log_likelihood

    for seed in range(3):
        risk, times, events = survivors(seed)
        plain = sum(
            torch.logsumexp(risk[times >= times[i]], 0) - risk[i] for i in range(60) if events[i]
        )
        loss = cox_loss(risk, times, events)
        assert float(loss.detach()) == pytest.approx(
            float((plain / events.sum()).detach()), abs=1e-12
        )
        (gradient,) = torch.autograd.grad(loss, risk)
        (expected,) = torch.autograd.grad(plain / events.sum(), risk)
        torch.testing.assert_close(gradient, expected)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = neg_partial_log_likelihood(
                risk, events, times, ties_method="breslow", reduction="sum"
            )
        assert float(loss.detach()) == pytest.approx(
            float((theirs / events.sum()).detach()), rel=1e-5
        )
    no_events = cox_loss(risk, times, torch.zeros(60, dtype=torch.bool))
    assert not no_events.detach()
    assert not torch.autograd.grad(no_events, risk)[0].any()


def test_the_stroke_loss_is_equation_9() -> None:
    truth, error = (
        torch.zeros(2, dtype=torch.float64),
        torch.tensor([0.5, -3.0], dtype=torch.float64),
    )
    plain = [
        0.2 * r**2 + 0.8 * (0.5 * abs(r) + 0.5 * (r**2 / 2 if abs(r) <= 1 else abs(r) - 0.5))
        for r in (0.5, -3)
    ]
    assert float(stroke_days_loss(error, truth)) == pytest.approx(np.mean(plain), abs=1e-12)
