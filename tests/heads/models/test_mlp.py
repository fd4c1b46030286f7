"""Training of the head."""

import pytest
import torch

from nnunet_fm.heads.models.mlp import train_head
from nnunet_fm.heads.task import HeadTraining


def test_a_head_learns_depends_on_its_seed_alone_and_refuses_nan() -> None:
    torch.manual_seed(0)
    x = torch.randn(80, 12)
    y = (x[:, 0] * x[:, 1] > 0).long()  # nothing linear
    training = HeadTraining(steps=400, hidden=64, learning_rate=1e-2)

    def loss(outputs: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs, y[rows])

    before = torch.random.get_rng_state()
    heads = [train_head(x, 2, loss, training, seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert float((heads[0](x).argmax(1) == y).float().mean()) > 0.95
    assert torch.equal(heads[0](x), heads[1](x))
    assert not torch.equal(heads[0](x), heads[2](x))
    with pytest.raises(FloatingPointError, match="not finite"):
        train_head(x, 2, lambda o, r: o.sum() * torch.nan, training, 0)


def test_every_number_of_subjects_gets_the_same_steps() -> None:
    for count, size in ((3, 3), (80, 32), (80, 80)):
        seen: list[int] = []

        def loss(outputs: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            seen.append(len(rows))  # noqa: B023
            return outputs.square().mean()

        train_head(
            torch.randn(count, 4),
            1,
            loss,
            HeadTraining(steps=7, batch_size=None if size == 80 else 32),
            0,
        )
        assert seen == [size] * 7
