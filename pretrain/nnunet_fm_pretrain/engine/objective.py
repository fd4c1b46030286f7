"""The contract of a pretraining method. The engine knows nothing else of it and never asks for its name.

A step is: batch -> for each phase: losses, gradients of the parameters that the phase owns,
optimiser step -> `after_step`. A method with one loss has the one phase `main`; one with a
discriminator has more. Methods differ in their batches (slices, slabs, sessions, 3-D crops), so
each makes its own from the store.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn
from torch.utils.data import Dataset

from nnunet_fm.encoders import Encoder
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.engine.recipe import Recipe


class Losses(NamedTuple):
    """What a phase gives: the weighted sum, its parts before weighting, and numbers to watch (all detached but one)."""

    total: Tensor
    parts: dict[str, Tensor]
    monitors: dict[str, Tensor]


class Exported(NamedTuple):
    """The encoder that a method trains, for use by others: module, architecture and numerical options."""

    encoder: nn.Module
    architecture: str
    options: Mapping[str, Any]


class Objective(nn.Module, ABC):
    """A pretraining method: its networks, its batches and its losses.

    Its state dict is all that it remembers from step to step.

    Attributes:
        all_phases: names of all phases that there are; each has an optimiser of its own.
    """

    all_phases: ClassVar[tuple[str, ...]] = ("main",)

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe

    @abstractmethod
    def batches(self, store: SliceStore, rank: int, ranks: int) -> Dataset[Any]:
        """Batches by step number; each a function of (seed, sample numbers) alone."""

    def phases(self, step: int) -> Sequence[str]:
        """Names of the phases of a step, in order."""
        return self.all_phases

    @abstractmethod
    def owned(self, phase: str) -> Mapping[str, nn.Module]:
        """Modules that a phase trains, by name; their gradients are clipped one by one."""

    @abstractmethod
    def forward(self, batch: Any, step: int, phase: str) -> Losses:
        """Losses of a batch; called through DistributedDataParallel."""

    @abstractmethod
    def load_encoder(self, encoder: Encoder) -> None:
        """Start from an encoder that the strict loader read (a warm start)."""

    def before_step(self, step: int) -> None:
        """Change gradients, e.g. drop those of frozen layers."""

    def after_step(self, step: int) -> None:
        """Update what is not trained by gradients: teacher, centre. Not called for a step that was skipped."""

    @abstractmethod
    def alarm(self, monitors: Mapping[str, float]) -> str | None:
        """A plain sentence if these monitors, past the warm-up, mean that training has collapsed."""

    @abstractmethod
    def exported(self) -> Exported:
        """The encoder to hand on."""
