"""A 2-D encoder on volumes, slice by slice."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nnunet_fm.encoders.contract import Encoder, InputSpec
from nnunet_fm.internal.errors import InputError


class SliceWise(Encoder):
    """Any 2-D encoder as an encoder of volumes: the features of all slices, stacked.

    Slices do not see their neighbours, and the stride along z is 1. `input_spec.divisor` and the
    strides of `feature_info` hold within the slices.

    Args:
        encoder: of slices.

    Raises:
        InputError: an encoder of volumes, or of several adjacent slices.

    Example:
        >>> import torch
        >>> from nnunet_fm.encoders import build_encoder
        >>> volume_encoder = SliceWise(build_encoder("dinov3_test16"))
        >>> tuple(volume_encoder.features(torch.zeros(1, 3, 5, 32, 32))[-1].shape)
        (1, 32, 5, 2, 2)
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        spec = encoder.input_spec
        if spec.spatial_dims != 2:
            raise InputError(
                f"an encoder of {spec.spatial_dims} dimensions; "
                "allowed: one of slices, spatial_dims 2"
            )
        if spec.slices > 1:
            raise InputError(
                f"an encoder of {spec.slices} adjacent slices; allowed: one of single slices. For "
                "this one, type: nnunet-fm features extract, or plan -c 2d"
            )
        self.encoder = encoder
        self.kind = encoder.kind
        self.in_channels = encoder.in_channels
        self.feature_info = encoder.feature_info
        self.depth = encoder.depth
        size = (1, *spec.native_size)
        axes = f"z{spec.axis_order}"
        self.input_spec = InputSpec(3, spec.divisor, size, axes, spec.orientation, spec.intensity)

    def features(self, x: Float[Tensor, "b c z y x"]) -> list[Float[Tensor, "b d z ty tx"]]:
        """Return one map per tap, with as many slices as the input."""
        return [to_volume(f, len(x)) for f in self.encoder.features(to_slices(x))]

    def embed(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d"]:
        """Return the mean of the slices' vectors (BrainDINO, section 4.3.2)."""
        return self.encoder.embed(to_slices(x)).unflatten(0, (len(x), -1)).mean(1)

    def active_parameters(self) -> Iterator[nn.Parameter]:
        """Yield those of the 2-D encoder."""
        return self.encoder.active_parameters()

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return those of the 2-D encoder."""
        return self.encoder.layer_groups()

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute the 2-D encoder's activations in the backward pass."""
        self.encoder.set_gradient_checkpointing(enabled)

    def set_fused_attention(self, enabled: bool) -> None:
        """Use torch's fused attention in the 2-D encoder."""
        self.encoder.set_fused_attention(enabled)


def to_slices(x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "n c y x"]:
    """Turn volumes into one batch of slices, volume after volume."""
    return x.transpose(1, 2).flatten(0, 1)


def to_slabs(x: Float[Tensor, "b c z y x"], slices: int) -> Float[Tensor, "b d z y x"]:
    """Give each slice of a channel its neighbours as channels, from the lowest to the highest.

    Beyond its ends, the last slice is repeated.

    Args:
        x: volumes, or parts of them.
        slices: of a slab, an odd number; d is c times as many.
    """
    if slices == 1:
        return x
    places = torch.arange(x.shape[2], device=x.device)
    offsets = torch.arange(slices, device=x.device) - slices // 2
    neighbours = (places[:, None] + offsets).clamp(0, x.shape[2] - 1)
    return x[:, :, neighbours].movedim(3, 2).flatten(1, 2)


def to_volume(slices: Float[Tensor, "n c y x"], volumes: int) -> Float[Tensor, "b c z y x"]:
    """Invert `to_slices` for `volumes` volumes."""
    return slices.unflatten(0, (volumes, -1)).transpose(1, 2)
