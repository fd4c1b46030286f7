"""The head of the paper: LayerNorm, Linear, GELU, Linear, trained on cached vectors (BrainDINO, section 4.3)."""

from collections.abc import Callable, Iterator
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Integer
from pydantic import Field
from torch import Tensor, nn

from nnunet_fm.internal.config import Part
from nnunet_fm.internal.errors import NonFiniteError


class Training(Part):
    """How a head is trained.

    Attributes:
        standardise: features are standardised on the training subjects first. Not the paper's;
            without it a head of few subjects (32 of IXI) is worse than their mean after 1000 steps,
            with it the number of steps hardly matters.
        steps: of the optimiser, the same for every number of subjects: with fixed epochs a small
            subset also gets fewer steps, and label efficiency is mixed up with too little training.
        epochs: in place of steps, as the paper has it (its number is not given).
        batch_size: subjects a step; None takes all of them (the Cox loss compares everybody).
        hidden: width of the hidden layer; the paper gives none.
        dropout: between the two linear layers.
        optimiser: `adam`, or `adamw` (decoupled weight decay).
        learning_rate: of the optimiser.
        weight_decay: of the optimiser.
    """

    standardise: bool = True
    steps: Annotated[int, Field(gt=0)] = 500
    epochs: Annotated[int, Field(gt=0)] | None = None
    batch_size: Annotated[int, Field(gt=0)] | None = 32
    hidden: Annotated[int, Field(gt=0)] = 256
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    optimiser: Literal["adam", "adamw"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5

    def steps_for(self, count: int) -> int:
        """Steps that a head of `count` subjects gets."""
        if self.epochs is None:
            return self.steps
        return self.epochs * (count // min(self.batch_size or count, count))


class Head(nn.Sequential):
    """LayerNorm, Linear, GELU, dropout, Linear.

    Args:
        width: of the vectors.
        outputs: classes, or 1.
        hidden: width in between.
        dropout: probability.
    """

    def __init__(self, width: int, outputs: int, hidden: int, dropout: float) -> None:
        super().__init__(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, outputs),
        )


def train_head(
    x: Float[Tensor, "n d"],
    outputs: int,
    loss: Callable[[Float[Tensor, "b o"], Integer[Tensor, " b"]], Tensor],
    training: Training,
    seed: int,
) -> Head:
    """Train a head; the last step's weights are taken, nothing is selected.

    Args:
        x: vectors of the training subjects.
        outputs: of the head.
        loss: of the outputs of some subjects and their numbers.
        training: see `Training`.
        seed: of initialisation, order and dropout.

    Returns:
        The head, in evaluation mode.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = Head(x.shape[1], outputs, training.hidden, training.dropout).train()
        rule = torch.optim.Adam if training.optimiser == "adam" else torch.optim.AdamW
        optimiser = rule(
            head.parameters(),
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
            fused=True,
        )
        for rows in _batches(len(x), training):
            value = loss(head(x[rows]), rows)
            if not torch.isfinite(value):
                raise NonFiniteError(
                    "the loss of the head is not finite; look at its features and targets"
                )
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
    return head.eval()


def _batches(count: int, training: Training) -> Iterator[Integer[Tensor, " b"]]:
    """Numbers of the subjects of each step: shuffled epochs, the last incomplete batch of each left out."""
    size = min(training.batch_size or count, count)
    done, steps = 0, training.steps_for(count)
    while done < steps:
        for rows in torch.randperm(count)[: count // size * size].split(size)[: steps - done]:
            yield rows
            done += 1
