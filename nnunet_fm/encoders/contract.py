"""The contract of encoders: what each one declares, and a base class with working defaults."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nnunet_fm.encoders.axes import Turn
from nnunet_fm.internal.errors import InputError

# Intensity conventions that can be applied; the first is nnU-Net's, with its mask or without.
Z_SCORE, Z_SCORE_EVERYWHERE, ZERO_TO_ONE = "z-score", "z-score of all voxels", "0 to 1"


@dataclass(frozen=True)
class InputSpec:
    """What an encoder takes as input.

    Attributes:
        spatial_dims: 2 for slices, 3 for volumes.
        divisor: every spatial size must be a multiple of this (pixels or voxels).
        native_size: spatial size that the weights were pretrained at, one value per dimension.
        axis_order: order of the spatial axes, slowest first; nnU-Net's is "zyx".
        orientation: anatomical plane or orientation of the pretraining images.
        intensity: of the pretraining images: one of the three conventions above, or free text,
            which is reported but not applied.
        modalities: the sequence that each channel holds, as `nnunet_fm.data.sequences` names them,
            if the channels have weights of their own; None if a channel may hold any image.
        subsets: whether a subset of the modalities is enough (the option `modalities` names them).
        zero_is_absent: whether the encoder leaves a channel of zeros out, as a sequence that is
            not there.
        slices: adjacent slices of each image; the middle one is encoded. With 3, channels 0 to 2
            hold the slices of the first image, from the lowest to the highest.
        spacing: size of a voxel of the pretraining in mm (z, y, x); None if it varied or is
            unknown.
    """

    spatial_dims: int
    divisor: int
    native_size: tuple[int, ...]
    axis_order: str = "yx"
    orientation: str = "axial"
    intensity: str = Z_SCORE
    modalities: tuple[str, ...] | None = None
    subsets: bool = False
    zero_is_absent: bool = False
    slices: int = 1
    spacing: tuple[float, ...] | None = None

    @property
    def doublings(self) -> int:
        """Number of 2x upsampling steps from the coarsest map to at least image resolution."""
        return (self.divisor - 1).bit_length()

    def of_modalities(self, modalities: Sequence[str] | None, subsets: bool = False) -> "InputSpec":
        """Return a copy whose channels hold these sequences."""
        return replace(self, modalities=tuple(modalities) if modalities else None, subsets=subsets)

    def of_slices(self, slices: int) -> "InputSpec":
        """Return a copy for so many adjacent slices of each image."""
        return replace(self, slices=slices)


def check_sides(sides: Sequence[int], step: int, what: str) -> None:
    """Check the spatial size of an input.

    Args:
        sides: spatial size in pixels or voxels.
        step: every side must be a multiple of it.
        what: name of `step` for the message, e.g. `patch size`.

    Raises:
        InputError: a side is not a multiple of `step`.
    """
    if any(side % step for side in sides):
        raise InputError(f"input {tuple(sides)} is not a multiple of the encoder's {what} {step}")


def checked_spacing(given: Any) -> tuple[float, ...] | None:
    """Return the size of a voxel in mm (z, y, x), or None if it is unknown.

    Raises:
        InputError: not three positive numbers.
    """
    if given is None:
        return None
    listed = isinstance(given, list | tuple) and len(given) == 3
    if not listed or not all(isinstance(side, int | float) and side > 0 for side in given):
        raise InputError(f"spacing {given}; allowed: three sizes in mm (z, y, x)")
    return tuple(float(side) for side in given)


@dataclass(frozen=True)
class FeatureInfo:
    """One tapped feature map, with the names that timm uses.

    Attributes:
        channels: of the map.
        stride: input pixels or voxels per cell of the map.
        name: of the module whose output is tapped.
    """

    channels: int
    stride: int
    name: str


class Encoder(nn.Module):
    """Base class of encoders of slices or volumes.

    A subclass sets the attributes in its constructor (or on the class) and defines `features`;
    everything else has a default that works.

    Attributes:
        kind: `tokens` (all maps at the stride of the patches) or `pyramid` (several strides).
        in_channels: channels of the input.
        input_spec: what the input has to be.
        feature_info: one entry per map that `features` returns.
        taps: numbers of the tapped blocks or stages; empty if they cannot be chosen.
        depth: number of transformer blocks; 0 for other networks.
        turn: to the orientation of the pretraining, if the encoder takes the option
            `image_orientation`.
        gradient_checkpointing: whether `run_block` recomputes activations in the backward pass.

    Example:
        >>> import torch
        >>> from nnunet_fm.encoders import build_encoder
        >>> encoder = build_encoder("dinov3_test16", taps=(1, 3)).eval()
        >>> [tuple(m.shape) for m in encoder.features(torch.zeros(1, 3, 32, 48))]
        [(1, 32, 2, 3), (1, 32, 2, 3)]
        >>> tuple(encoder.embed(torch.zeros(1, 3, 32, 48)).shape)
        (1, 32)
    """

    kind: Literal["tokens", "pyramid"]
    in_channels: int
    input_spec: InputSpec
    feature_info: Sequence[FeatureInfo]
    taps: tuple[int, ...] = ()
    depth: int = 0
    turn: Turn | None = None
    gradient_checkpointing: bool = False

    def features(self, x: Float[Tensor, "b c *grid"]) -> list[Float[Tensor, "b d *cells"]]:
        """Return one feature map per tap, with the spatial axes in nnU-Net's order."""
        raise NotImplementedError

    def embed(self, x: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b d"]:
        """Return one vector per input: by default the mean over the last tapped map."""
        last = self.features(x)[-1]
        return last.mean(tuple(range(2, last.dim())))

    @property
    def embedded_layers(self) -> tuple[int, ...]:
        """Numbers of the layers whose vectors `embed_taps` returns.

        The taps if a subclass defines `embed_taps`; else (0,), for `embed` alone.
        """
        if type(self).embed_taps is Encoder.embed_taps:
            return (0,)
        return tuple(self.taps) or (0,)

    def embed_taps(self, x: Float[Tensor, "b c *grid"]) -> list[Float[Tensor, "b d"]]:
        """Return one vector per input for each of `embedded_layers`."""
        return [self.embed(x)]

    def active_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that influence `features`: those that fine-tuning trains."""
        return self.parameters()

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return all parameters, grouped from input to output, for layer-wise learning rates.

        Transformers give the embeddings, each block, and the final norm. One group means that there
        are no layers to tell apart.
        """
        return [list(self.parameters())]

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute activations in the backward pass instead of keeping them."""
        self.gradient_checkpointing = enabled

    def set_fused_attention(self, enabled: bool) -> None:
        """Use torch's fused attention kernel, if the network has attention; same results."""

    def run_block(self, block: Callable[..., Any], x: Tensor, **arguments: Any) -> Any:
        """Run a block or another part, recomputed in the backward pass if checkpointing is on."""
        if self.gradient_checkpointing:
            output = checkpoint(block, x, use_reentrant=False, **arguments)
        else:
            output = block(x, **arguments)
        return output


def parameters_without(module: nn.Module, parts: Iterable[nn.Module]) -> Iterator[nn.Parameter]:
    """Yield the parameters of a module except those of some of its parts."""
    excluded = {id(p) for part in parts for p in part.parameters()}
    return (p for p in module.parameters() if id(p) not in excluded)


def groups_around_blocks(
    encoder: nn.Module, blocks: Iterable[nn.Module], norm: nn.Module
) -> list[list[nn.Parameter]]:
    """Return the parameters below the blocks, those of each block, and those of the final norm."""
    groups = [list(part.parameters()) for part in (*blocks, norm)]
    above = {id(p) for group in groups for p in group}
    below = [p for p in encoder.parameters() if id(p) not in above]
    return [below, *groups]
