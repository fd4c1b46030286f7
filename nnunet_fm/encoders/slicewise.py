"""A 2-D encoder on volumes, slice by slice."""

from typing import Literal, cast

from jaxtyping import Float
from torch import Tensor, nn

from nnunet_fm.encoders.contract import Encoder, InputSpec
from nnunet_fm.internal.errors import InputError


class SliceWise(nn.Module):
    """Any 2-D encoder as one of volumes: the features of every slice, stacked.

    Nothing passes from a slice to its neighbours, and the stride along z is 1; `input_spec.divisor`
    and the strides of `feature_info` hold within the slices.

    Args:
        encoder: of slices.

    Raises:
        ValueError: an encoder of volumes.
    """

    kind: Literal["tokens", "pyramid"]

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        spec = encoder.input_spec
        if spec.spatial_dims != 2:
            raise InputError(
                f"an encoder of {spec.spatial_dims} dimensions; allowed: one of slices, spatial_dims 2"
            )
        self.encoder = cast(nn.Module, encoder)
        self.kind, self.in_channels, self.feature_info = (
            encoder.kind,
            encoder.in_channels,
            encoder.feature_info,
        )
        size, axes = (1, *spec.native_size), f"z{spec.axis_order}"
        self.input_spec = InputSpec(3, spec.divisor, size, axes, spec.orientation, spec.intensity)

    def features(self, x: Float[Tensor, "b c z y x"]) -> list[Float[Tensor, "b d z ty tx"]]:
        """Maps of each tap, one for each slice."""
        inner = cast(Encoder, self.encoder)
        return [to_volume(f, len(x)) for f in inner.features(to_slices(x))]

    def embed(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d"]:
        """The mean of the slices' vectors (BrainDINO, section 4.3.2)."""
        inner = cast(Encoder, self.encoder)
        return inner.embed(to_slices(x)).unflatten(0, (len(x), -1)).mean(1)


def to_slices(x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "n c y x"]:
    """Volumes as one batch of slices, volume after volume."""
    return x.transpose(1, 2).flatten(0, 1)


def to_volume(slices: Float[Tensor, "n c y x"], volumes: int) -> Float[Tensor, "b c z y x"]:
    """The inverse of `to_slices`, for so many volumes."""
    return slices.unflatten(0, (volumes, -1)).transpose(1, 2)
