"""The 2.5-D network: a frozen encoder of slices whose features are mixed with those of the slices above and below."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nnunet_fm.encoders.slicewise import to_slices, to_volume
from nnunet_fm.internal.errors import InputError
from nnunet_fm.network.frozen import FrozenEncoderNetwork

ODD = (1, 3, 5)
THINNEST = 4  # slices of a patch: nnU-Net's blur pads by reflecting up to three


class SliceMix(nn.Module):
    """A convolution along z for each feature channel by itself, that begins as the identity.

    Beyond the ends of the patch the last slice is repeated.

    Args:
        channels: of the feature maps.
        slices: that are mixed, the one in the middle counted: 1, 3 or 5.

    Raises:
        ValueError: another number of slices.
    """

    def __init__(self, channels: int, slices: int) -> None:
        super().__init__()
        check_mix(slices)
        self.weight = nn.Parameter(torch.zeros(channels, 1, slices, 1, 1))
        nn.init.ones_(self.weight[:, :, slices // 2])

    def forward(self, x: Float[Tensor, "b d z ty tx"]) -> Float[Tensor, "b d z ty tx"]:
        """As many slices as there were."""
        reach = self.weight.shape[2] // 2
        if not reach:
            return x
        padded = functional.pad(x, (0, 0, 0, 0, reach, reach), mode="replicate")
        return functional.conv3d(padded, self.weight, groups=len(self.weight))


class FrozenEncoder25DNetwork(FrozenEncoderNetwork):
    """`FrozenEncoderNetwork` on stacks of slices, with a small trainable mix along z between encoder and decoder.

    Every slice goes through the frozen encoder once; each tapped map is mixed with those of its
    neighbours, channel by channel, and decoded as a slice. The mix begins as the identity, so that
    the network begins as the 2-D one. With one slice there is no mix, and a 2-D checkpoint fits
    (BrainDINO's first limitation is that slices know nothing of each other; paper section 3).

    Args:
        mix_slices: 1, 3 or 5.
        **slices: as `FrozenEncoderNetwork`, with a 2-D encoder and decoder.

    Raises:
        ValueError: an encoder of volumes, or another number of slices.
    """

    def __init__(self, *args: Any, mix_slices: int = 3, **slices: Any) -> None:
        super().__init__(*args, **slices)
        encoder = self.encoder
        if encoder.input_spec.spatial_dims != 2:
            raise InputError(
                f"mix_slices={mix_slices} is for encoders of slices; {self.architecture} is one of volumes"
            )
        mixes = [SliceMix(f.channels, mix_slices) for f in encoder.feature_info]
        self.mix = nn.ModuleList(mixes if mix_slices > 1 else [])

    def encode(self, x: Float[Tensor, "b c z y x"]) -> list[Float[Tensor, "b d z ty tx"]]:
        """The 2-D features of each slice, stacked."""
        return [to_volume(f, len(x)) for f in super().encode(to_slices(x))]

    def decode(
        self, features: list[Tensor], x: Float[Tensor, "b c z y x"]
    ) -> Float[Tensor, "b k z y x"]:
        """Each slice decoded from its features and its neighbours'."""
        mixed = (
            [mix(f) for mix, f in zip(self.mix, features, strict=True)]
            if len(self.mix)
            else features
        )
        return to_volume(super().decode([to_slices(f) for f in mixed], to_slices(x)), len(x))


def check_mix(slices: int, stack: int = THINNEST + 1, base: str = "2d") -> int:
    """Raise ValueError unless so many slices can be mixed in a patch of `stack` slices of a configuration `base`."""
    if slices not in ODD or stack < max(slices, THINNEST):
        raise InputError(
            f"{slices} slices to mix, in a patch of {stack}; allowed: {', '.join(map(str, ODD))}, no more than the "
            f"patch has, which has {THINNEST} or more (--patch SLICES SIDE SIDE)"
        )
    if base != "2d":
        raise InputError(
            f"{slices} slices to mix with -c {base}; allowed: -c 2d, whose slices are stacked"
        )
    return slices
