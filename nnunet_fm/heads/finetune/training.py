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
    best = Training(0, 0, float("inf"))
    kept: dict[str, Tensor] = {}
    progress = tqdm(range(1, settings.epochs + 1), "fine-tuning", unit="epoch", leave=False)
    for epoch in progress:
        order = split.train[torch.randperm(len(split.train), generator=generator)]
        for rows in order.split(settings.batch_size):
            loss = target.loss(network.head(vectors(rows)), rows)
            _check_finite(loss)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        if not len(split.validation):
            best = Training(epoch, epoch, float("nan"))
            continue
        validation_loss = _mean_loss(
            network, vectors, target, split.validation, settings.batch_size
        )
        progress.set_postfix(validation_loss=f"{validation_loss:.3f}")
        if validation_loss < best.loss:
            best = Training(epoch, epoch, validation_loss)
            kept = {name: p.detach().clone() for name, p in network.trained().items()}
        elif epoch - best.epoch >= settings.patience:
            break
    if kept:
        best = Training(best.epoch, epoch, best.loss)
        network.load_state_dict(kept, strict=False)
    return best


def predict(
    network: FineTunedNetwork, vectors: Vectors, count: int, batch: int
) -> Float[Tensor, "n o"]:
    """Return the outputs of the first `count` cases."""
    with torch.inference_mode():
        return torch.cat([network.head(vectors(r)).cpu() for r in torch.arange(count).split(batch)])


def _mean_loss(
    network: FineTunedNetwork, vectors: Vectors, target: TrainingTarget, rows: Rows, batch: int
) -> float:
    with torch.inference_mode():
        outputs = torch.cat([network.head(vectors(part)) for part in rows.split(batch)])
        loss = target.loss(outputs, rows)
    _check_finite(loss)
    return float(loss)


def _check_finite(loss: Tensor) -> None:
    if not torch.isfinite(loss):
        raise NonFiniteError(
            "the loss of the fine-tuning is not finite; try a lower finetune.learning_rate"
        )
