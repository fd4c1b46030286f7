"""The contract that every encoder obeys; the trainer, the cache and the analysis ask nothing else of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from nnunet_fm.internal.errors import InputError

# intensities that can be made; the first is what nnU-Net has, with its mask or without
Z_SCORE, Z_SCORE_EVERYWHERE, ZERO_TO_ONE = "z-score", "z-score of all voxels", "0 to 1"


@dataclass(frozen=True)
class InputSpec:
    """What an encoder wants to be fed.

    Attributes:
        spatial_dims: 2 for slices, 3 for volumes.
        divisor: every spatial size must be a multiple of this (pixels or voxels).
        native_size: spatial size that the weights were pretrained at, one value per dimension.
        axis_order: order of the spatial axes, slowest first; nnU-Net's is "zyx".
        orientation: anatomical plane or orientation of the pretraining images.
        intensity: of the pretraining images: one of the three above, or other words, which are told
            and not applied.
        modalities: the sequence that each channel is, as `nnunet_fm.data.sequences` names them,
            where the channels have weights of their own; None where they are any image.
        subsets: whether some of the modalities will do (the option `modalities` names them).
    """

    spatial_dims: int
    divisor: int
    native_size: tuple[int, ...]
    axis_order: str = "yx"
    orientation: str = "axial"
    intensity: str = Z_SCORE
    modalities: tuple[str, ...] | None = None
    subsets: bool = False

    @property
    def doublings(self) -> int:
        """How often a grid of patches (or the coarsest map) is doubled to reach the image, or more."""
        return (self.divisor - 1).bit_length()

    def of_modalities(self, modalities: Sequence[str] | None, subsets: bool = False) -> "InputSpec":
        """The same, for channels that are these sequences."""
        return replace(self, modalities=tuple(modalities) if modalities else None, subsets=subsets)


def check_sides(sides: Sequence[int], step: int, what: str) -> None:
    """Raise ValueError unless every side of an input is a multiple of an encoder's `what`, which is `step`."""
    if any(side % step for side in sides):
        raise InputError(f"input {tuple(sides)} is not a multiple of the encoder's {what} {step}")


@dataclass(frozen=True)
class FeatureInfo:
    """One tapped feature map, named as in timm: `channels`, `stride` (input pixels per cell) and module `name`."""

    channels: int
    stride: int
    name: str


@runtime_checkable
class Encoder(Protocol):
    """An `nn.Module`, 2-D or 3-D, that says what it is and gives features."""

    kind: Literal["tokens", "pyramid"]
    input_spec: InputSpec
    in_channels: int
    feature_info: Sequence[FeatureInfo]

    def features(self, x: Float[Tensor, "b c *grid"]) -> list[Float[Tensor, "b d *tokens"]]:
        """One feature map per tap, spatial axes in nnU-Net's order."""
        ...

    def embed(self, x: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b d"]:
        """One vector per input: the CLS token, or what the paper pools."""
        ...
