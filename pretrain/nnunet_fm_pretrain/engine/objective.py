"""The objective: the networks, batches and losses of a method, as the engine sees them.

A step is: batch, then for each phase the losses (of micro-batches, one after another), the
gradients of the modules that the phase trains and a step of the phase's optimiser, then
`after_step`. A method with one loss has the one phase `main`; one with a discriminator has more.
The engine asks for nothing else.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn
from torch.utils.data import Dataset

from nnunet_fm.encoders import Encoder


class Losses(NamedTuple):
    """The result of a phase.

    Attributes:
        total: the weighted sum; the only tensor with a gradient.
        parts: its terms before weighting, for the log.
        monitors: other numbers for the log and for `collapse_warning`; of a step, those of its last
            micro-batch are logged.
    """

    total: Tensor
    parts: dict[str, Tensor]
    monitors: dict[str, Tensor]


class Exported(NamedTuple):
    """The trained encoder as it goes into a weight file.

    Attributes:
        tensors: state dict in the names that the file has; the loader must recognise them.
        architecture: name that `nnunet_fm.encoders.build_encoder` takes.
        card: weight card that the loader uses for the file.
        options: numerical options of the architecture.
    """

    tensors: Mapping[str, Tensor]
    architecture: str
    card: str
    options: Mapping[str, Any]


class Objective(nn.Module, ABC):
    """A pretraining method at work: its networks, its batches and its losses.

    Its state dict is all that it carries from step to step.

    Attributes:
        all_phases: names of all phases; each has an optimiser of its own.
    """

    all_phases: ClassVar[tuple[str, ...]] = ("main",)

    @abstractmethod
    def batches(self, store: Any, rank: int, ranks: int) -> Dataset[Any]:
        """Return the batches of one rank by step number.

        Each must be a function of the seed and the sample numbers alone, see
        `nnunet_fm_pretrain.data.sampling`.
        """

    def phases(self, step: int) -> Sequence[str]:
        """Return the names of the phases of a step, in order."""
        return self.all_phases

    def micro_batches(self, batch: Any) -> Sequence[Any]:
        """Divide a batch into parts whose mean gradient is that of the batch, to save memory."""
        return [batch]

    @abstractmethod
    def trainable_modules(self, phase: str) -> Mapping[str, nn.Module]:
        """Return the modules that a phase trains, by name. Each is clipped separately."""

    @abstractmethod
    def forward(self, batch: Any, step: int, phase: str) -> Losses:
        """Compute the losses of a batch; called through DistributedDataParallel."""

    @abstractmethod
    def load_encoder(self, encoder: Encoder) -> None:
        """Start from the weights of an encoder that the strict loader read (a warm start)."""

    def before_step(self, step: int, phase: str) -> None:
        """Change gradients before the optimiser's step, e.g. drop those of frozen layers."""

    def after_step(self, step: int) -> None:
        """Update what is not trained by gradients, e.g. a teacher; not called for skipped steps."""

    def collapse_warning(self, monitors: Mapping[str, float]) -> str | None:
        """Return a sentence if these logged means show that training has collapsed."""
        return None

    def blocks_to_compile(self) -> Iterable[nn.Module]:
        """Return the modules that `torch.compile` takes one by one on GPUs."""
        return ()

    @abstractmethod
    def export_encoder(self) -> Exported:
        """Return the encoder for use by others."""
