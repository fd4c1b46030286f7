"""Train a network on volumes, and keep the epoch with the lowest loss on validation subjects."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from nnunet_fm.heads.finetune.inner_split import InnerSplit
from nnunet_fm.heads.finetune.network import FineTunedNetwork
from nnunet_fm.heads.finetune.settings import FineTuning
from nnunet_fm.heads.models.training_target import Rows, TrainingTarget
from nnunet_fm.internal.errors import NonFiniteError

Vectors = Callable[[Rows], Float[Tensor, "b d"]]  # of some cases, from the encoder


@dataclass(frozen=True)
class Training:
    """Which epoch was kept.

    Attributes:
        epoch: its number, from 1.
        epochs: that were trained.
        loss: on the validation subjects; NaN without any.
    """

    epoch: int
    epochs: int
    loss: float


def train(
    network: FineTunedNetwork,
    vectors: Vectors,
    target: TrainingTarget,
    split: InnerSplit,
    settings: FineTuning,
    seed: int,
) -> Training:
    """Train a network in place.

    Args:
        network: encoder and head.
        vectors: computes the encoder's vectors of cases, with their gradients.
        target: of all cases.
        split: the cases to train on, and those that choose the epoch; if there are none of these,
            the last epoch is kept.
        settings: see `FineTuning`.
        seed: of the order of the cases.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(
        network.trained().values(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    kept: dict[str, Tensor] = {}
    best_epoch, lowest = 0, float("inf")
    progress = tqdm(range(1, settings.epochs + 1), "fine-tuning", unit="epoch", leave=False)
    for epoch in progress:
        order = split.train[torch.randperm(len(split.train), generator=generator)]
        for rows in order.split(settings.batch_size):
            loss = _finite(target.loss(network.head(vectors(rows)), rows))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        if not len(split.validation):
            continue
        with torch.inference_mode():
            outputs = outputs_of(network, vectors, split.validation, settings.batch_size)
            validation_loss = float(_finite(target.loss(outputs, split.validation)))
        progress.set_postfix(validation_loss=f"{validation_loss:.3f}")
        if validation_loss < lowest:
            best_epoch, lowest = epoch, validation_loss
            kept = {name: p.detach().clone() for name, p in network.trained().items()}
        elif epoch - best_epoch >= settings.patience:
            break
    if not kept:
        return Training(epoch, epoch, float("nan"))
    network.load_state_dict(kept, strict=False)
    return Training(best_epoch, epoch, lowest)


def outputs_of(
    network: FineTunedNetwork, vectors: Vectors, rows: Rows, batch: int
) -> Float[Tensor, "b o"]:
    """Return the outputs for some cases, computed in batches."""
    return torch.cat([network.head(vectors(part)) for part in rows.split(batch)])


def _finite(loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Return the loss.

    Raises:
        FloatingPointError: it is not finite.
    """
    if not torch.isfinite(loss):
        raise NonFiniteError(
            "the loss of the fine-tuning is not finite; try a lower finetune.learning_rate"
        )
    return loss
