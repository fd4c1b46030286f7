"""Whether a training step fits into the free memory, known before the first step."""

from dataclasses import dataclass

import torch

from nnunet_fm.internal import device as devices
from nnunet_fm.network.activation_memory import does_not_fit, kept_bytes
from nnunet_fm.network.frozen import FrozenEncoderNetwork

UNKNOWN_MEMORY = 8 << 30  # bytes assumed where the system does not report the free memory
CHECKPOINTING_SHARE = 3  # activations above a third of the free memory are recomputed


@dataclass(frozen=True)
class MemoryDecision:
    """How a training step uses the memory.

    Attributes:
        gradient_checkpointing: whether the encoder's activations are recomputed.
        message: for the log.
        problem: why the step cannot fit, and what would fit; empty if it fits.
    """

    gradient_checkpointing: bool
    message: str
    problem: str = ""


@dataclass(frozen=True)
class MemoryCheck:
    """Compares a training step's saved activations with the free memory.

    Attributes:
        network: on its device, in its precision.
        device: where it is trained.
        channels: of the input.
        patch: sides of the input, in pixels or voxels.
        batch_size: inputs per step.
    """

    network: FrozenEncoderNetwork
    device: torch.device
    channels: int
    patch: tuple[int, ...]
    batch_size: int

    def saved_bytes(self, patch: tuple[int, ...]) -> int:
        """Bytes that a forward pass saves for the backward pass.

        Raises:
            RuntimeError: the encoder's shapes depend on its data.
        """
        return kept_bytes(self.network, self.channels, patch, self.batch_size)

    def decide(self, wanted: bool | None, encoder_has_gradient: bool) -> MemoryDecision:
        """Switch gradient checkpointing on where the activations take much of the memory.

        Args:
            wanted: on, off, or None to decide by the free memory.
            encoder_has_gradient: whether a gradient crosses the encoder; otherwise nothing of it
                is saved.
        """
        free = devices.free_memory(self.device)
        checkpointing = bool(wanted and encoder_has_gradient)
        self.network.use_kernels(gradient_checkpointing=checkpointing)
        try:
            without = self.saved_bytes(self.patch)
        except RuntimeError as error:  # an encoder whose shapes depend on its data
            message = f"the forward pass saves an unknown amount of memory ({error})"
            return MemoryDecision(checkpointing, message)
        saved = without
        limit = (free or UNKNOWN_MEMORY) // CHECKPOINTING_SHARE
        if wanted is None and encoder_has_gradient and without > limit:
            checkpointing = True
            self.network.use_kernels(gradient_checkpointing=True)
            saved = self.saved_bytes(self.patch)
        problem = self.oom_message(free) if free is not None and saved > free else ""
        return MemoryDecision(checkpointing, _message(saved, without, free), problem)

    def oom_message(self, free: int | None = None) -> str:
        """Say that a step does not fit, and what would.

        Args:
            free: bytes; what is free now, if None.
        """
        if free is None:
            free = devices.free_memory(self.device) or UNKNOWN_MEMORY
        step = self.network.step
        try:
            return does_not_fit(self.saved_bytes, self.patch, step, self.batch_size, free)
        except RuntimeError:  # an encoder whose shapes depend on its data
            return (
                f"patch {self.patch} in batches of {self.batch_size} needs more memory than there "
                "is. Type `nnunet-fm plan` again with another --patch or a smaller --batch-size"
            )


def _message(saved: int, without_checkpointing: int, free: int | None) -> str:
    free_text = "unknown" if free is None else str(free >> 20)
    message = f"the forward pass keeps {saved >> 20} MiB of {free_text} free"
    if saved < without_checkpointing:
        message += f"; gradient checkpointing on, without it {without_checkpointing >> 20}"
    return message
