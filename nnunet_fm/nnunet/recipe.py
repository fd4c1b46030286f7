"""The numbers of a training, the parameter groups and the learning-rate schedule they give."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nnunet_fm.encoders import Encoder
from nnunet_fm.internal.errors import InputError
from nnunet_fm.network.frozen import FrozenEncoderNetwork


@dataclass(frozen=True)
class Recipe:
    """The numbers of a training (paper section 4.3.1; release braindino_trainer.py).

    Attributes:
        epochs: number of epochs.
        iterations: training batches per epoch.
        validation_iterations: batches per epoch for the pseudo Dice.
        learning_rate: peak rate of decoder and fusion.
        weight_decay: of matrices only, not of norms, biases and the fusion.
        betas: AdamW's.
        encoder_learning_rate: peak rate of the encoder; None freezes it.
        layer_decay: factor on the encoder's learning rate from each block to the one below it.
        gradient_checkpointing: recompute the encoder's activations; None decides by free memory.
        slim_final: save the final checkpoint without the encoder too.
    """

    epochs: int = 100
    iterations: int = 250
    validation_iterations: int = 50
    learning_rate: float = 3e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    encoder_learning_rate: float | None = None
    layer_decay: float = 1.0
    gradient_checkpointing: bool | None = None
    slim_final: bool = False


class LinearDecay(LRScheduler):
    """Lets every group's learning rate fall linearly to zero; stepped by epoch, as in nnU-Net."""

    def __init__(self, optimizer: Optimizer, epochs: int) -> None:
        self.epochs = epochs
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        super().__init__(optimizer)

    def step(self, epoch: int | None = None) -> None:
        """Set the rates of epoch `epoch`, counted from 0."""
        factor = 1 - (epoch or 0) / self.epochs
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor


def parameter_groups(network: FrozenEncoderNetwork, recipe: Recipe) -> list[dict[str, Any]]:
    """Group the trained parameters for the optimiser.

    The decoder's matrices have weight decay; norms, biases, fusion and slice mixes have none. An
    encoder that is fine-tuned adds the groups of its layers.
    """
    decay: list[Tensor] = []
    plain: list[Tensor] = []
    for name, parameter in network.named_parameters():
        part = name.split(".")[0]
        if part != "encoder":
            (decay if part == "decoder" and parameter.ndim > 1 else plain).append(parameter)
    rate = recipe.learning_rate
    groups: list[dict[str, Any]] = [
        {"params": decay, "lr": rate, "weight_decay": recipe.weight_decay},
        {"params": plain, "lr": rate, "weight_decay": 0.0},
    ]
    if recipe.encoder_learning_rate is not None:
        groups += _encoder_groups(network.encoder, recipe, recipe.encoder_learning_rate)
    return groups


def _encoder_groups(encoder: Encoder, recipe: Recipe, rate: float) -> Iterator[dict[str, Any]]:
    """Yield the encoder's groups from output to input, with rates that fall by `layer_decay`."""
    layers = encoder.layer_groups()
    if len(layers) == 1 and recipe.layer_decay != 1:
        raise InputError(
            f"layer_decay {recipe.layer_decay} is for transformers; allowed for this encoder: 1"
        )
    if len(layers) == 1:
        layers = _norms_last(encoder)
    for above, parameters in enumerate(reversed(layers)):
        for matrices in (True, False):
            learned = [p for p in parameters if p.requires_grad and (p.ndim > 1) == matrices]
            yield {
                "params": learned,
                "lr": rate * recipe.layer_decay**above,
                "weight_decay": recipe.weight_decay if matrices else 0.0,
            }


def _norms_last(encoder: Encoder) -> list[list[nn.Parameter]]:
    """Split the parameters as version 0.1 did, so that its checkpoints can be resumed."""
    norms = [p for name, p in encoder.named_parameters() if ".norm." in name]
    ids = {id(p) for p in norms}
    return [[p for p in encoder.parameters() if id(p) not in ids], norms]
