"""The 2.5-D network: features of a frozen 2-D encoder, mixed with those of adjacent slices."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nnunet_fm.encoders.slicewise import to_slabs, to_slices, to_volume
from nnunet_fm.internal.errors import InputError
from nnunet_fm.network.frozen import FrozenEncoderNetwork

ODD = (1, 3, 5)
THINNEST = 4  # slices of a patch: nnU-Net's blur reflects up to three


class SliceMix(nn.Module):
    """A depthwise convolution along z that starts as the identity.

    Beyond the ends of the patch, the last slice is repeated.

    Args:
        channels: of the feature maps.
        slices: number of slices that are mixed, including the middle one: 1, 3 or 5.

    Raises:
        ValueError: another number of slices.
    """

    def __init__(self, channels: int, slices: int) -> None:
        super().__init__()
        check_mix(slices)
        self.weight = nn.Parameter(torch.zeros(channels, 1, slices, 1, 1))
        nn.init.ones_(self.weight[:, :, slices // 2])

    def forward(self, x: Float[Tensor, "b d z ty tx"]) -> Float[Tensor, "b d z ty tx"]:
        """Mix each slice with its neighbours; the number of slices stays the same."""
        reach = self.weight.shape[2] // 2
        if not reach:
            return x
        padded = functional.pad(x, (0, 0, 0, 0, reach, reach), mode="replicate")
        return functional.conv3d(padded, self.weight, groups=len(self.weight))


class FrozenEncoder25DNetwork(FrozenEncoderNetwork):
    """`FrozenEncoderNetwork` on stacks of slices, with a trainable mix along z before the decoder.

    Every slice passes the frozen encoder once; each tapped map is mixed with those of the adjacent
    slices, channel by channel, and decoded as a slice. The mix starts as the identity, so the
    network starts as the 2-D one. With one slice there is no mix, and a 2-D checkpoint fits.
    (BrainDINO, section 3, names the independence of slices as its first limitation.)

    Args:
        mix_slices: 1, 3 or 5.
        **slices: arguments of `FrozenEncoderNetwork`, with a 2-D encoder and decoder.

    Raises:
        ValueError: an encoder of volumes, or another number of slices.
    """

    takes_stacks = True

    def __init__(self, *args: Any, mix_slices: int = 3, **slices: Any) -> None:
        super().__init__(*args, **slices)
        encoder = self.encoder
        if encoder.input_spec.spatial_dims != 2:
            raise InputError(
                f"mix_slices={mix_slices} is for encoders of slices; "
                f"{self.architecture} is one of volumes"
            )
        mixes = [SliceMix(f.channels, mix_slices) for f in self.feature_info]
        self.mix = nn.ModuleList(mixes if mix_slices > 1 else [])

    def encode(self, x: Float[Tensor, "b c z y x"]) -> list[Float[Tensor, "b d z ty tx"]]:
        """Return the 2-D features of each slice, stacked."""
        return [to_volume(f, len(x)) for f in super().encode(x)]

    def fuse(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "n e y x"]:
        """Return the input of the encoder for each slice, with its neighbours if it sees any."""
        fused = super().fuse(to_slices(x))
        return to_slices(to_slabs(to_volume(fused, len(x)), self.encoder.input_spec.slices))

    def decode(
        self, features: list[Tensor], x: Float[Tensor, "b c z y x"]
    ) -> Float[Tensor, "b k z y x"]:
        """Decode each slice from its features and those of its neighbours."""
        mixed = features
        if len(self.mix):
            mixed = [mix(f) for mix, f in zip(self.mix, features, strict=True)]
        return to_volume(super().decode([to_slices(f) for f in mixed], to_slices(x)), len(x))


def check_mix(slices: int, stack: int = THINNEST + 1, base: str = "2d") -> int:
    """Check a number of slices to mix, and return it.

    Args:
        slices: to mix.
        stack: slices of a patch.
        base: stock configuration of the data.

    Raises:
        InputError: another number than 1, 3 or 5, more than the patch has, or not `2d`.
    """
    if slices not in ODD or stack < max(slices, THINNEST):
        raise InputError(
            f"{slices} slices to mix, in a patch of {stack}; allowed: {', '.join(map(str, ODD))}, "
            f"no more than the patch has, which has {THINNEST} or more (--patch SLICES SIDE SIDE)"
        )
    if base != "2d":
        raise InputError(
            f"{slices} slices to mix with -c {base}; allowed: -c 2d, whose slices are stacked"
        )
    return slices
