"""Decoders of 3-D tokens: UNETR's (extra `[volume]`) and Primus' patch decoder."""

from collections.abc import Sequence
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.patch_encode_decode import PatchDecode
from jaxtyping import Float
from torch import Tensor, nn

from nnunet_fm.encoders.contract import FeatureInfo
from nnunet_fm.internal.errors import InputError
from nnunet_fm.network.decoders.base import Decoder


class UnetrDecoder(Decoder):
    """The decoder of UNETR (Hatamizadeh et al., 2022) from MONAI's blocks; it uses the image.

    Args:
        feature_info: four tapped maps of stride 16; the last is the deepest.
        num_classes: output channels.
        stages: number of doublings, 4.
        input_channels: of the image.
        width: channels at full resolution (BrainIAC's and BM-MAE's authors: 16).

    Raises:
        ValueError: other than four maps, or another stride.
    """

    spatial_dims = 3
    kind = "tokens"

    def __init__(
        self,
        feature_info: Sequence[FeatureInfo],
        num_classes: int,
        stages: int,
        input_channels: int,
        width: int = 16,
    ) -> None:
        from monai.networks.blocks.dynunet_block import UnetOutBlock
        from monai.networks.blocks.unetr_block import UnetrBasicBlock, UnetrPrUpBlock, UnetrUpBlock

        super().__init__()
        if len(feature_info) != 4 or stages != 4:
            raise InputError(
                f"decoder unetr with {len(feature_info)} taps of stride {2**stages}; allowed: four "
                "of stride 16, e.g. --taps 3,6,9,11, or --decoder primus3d"
            )
        hidden = feature_info[-1].channels
        block: dict[str, Any] = {"norm_name": "instance", "res_block": True}
        self.image = UnetrBasicBlock(3, input_channels, width, 3, 1, **block)
        self.skips = nn.ModuleList(
            UnetrPrUpBlock(
                3, hidden, width * 2 ** (n + 1), 2 - n, 3, 1, 2, conv_block=True, **block
            )
            for n in range(3)
        )
        widths = [width, 2 * width, 4 * width, 8 * width, hidden]
        self.ups = nn.ModuleList(
            UnetrUpBlock(3, widths[n + 1], widths[n], 3, 2, **block) for n in range(4)
        )
        self.head = UnetOutBlock(3, width, num_classes)

    @classmethod
    def sees_image(cls, feature_info: Sequence[FeatureInfo]) -> bool:
        """Whether it uses the image: always."""
        return True

    def forward(
        self, features: list[Float[Tensor, "b d tz ty tx"]], image: Float[Tensor, "b c z y x"]
    ) -> Float[Tensor, "b k z y x"]:
        """Return class logits at the size of the image."""
        skips = [self.image(image)]
        for skip, feature in zip(self.skips, features, strict=False):
            skips.append(skip(feature))
        x = features[-1]
        for up, skip in zip(reversed(self.ups), reversed(skips), strict=True):
            x = up(x, skip)
        logits: Tensor = self.head(x)
        return logits


class VolumePrimusDecoder(Decoder):
    """A 1x1x1 convolution over the taps, then Primus' patch decoder; light, without the image.

    Args:
        feature_info: the tapped maps; all of one stride.
        num_classes: output channels.
        stages: number of doublings.
        input_channels: of the image; unused (common decoder signature).
    """

    spatial_dims = 3
    kind = "tokens"

    def __init__(
        self,
        feature_info: Sequence[FeatureInfo],
        num_classes: int,
        stages: int,
        input_channels: int,
    ) -> None:
        super().__init__()
        width = feature_info[-1].channels
        self.mix = nn.Conv3d(sum(f.channels for f in feature_info), width, 1)
        self.decode = PatchDecode((2**stages,) * 3, width, num_classes)

    def forward(
        self, features: list[Float[Tensor, "b d tz ty tx"]], image: Float[Tensor, "b c z y x"]
    ) -> Float[Tensor, "b k z y x"]:
        """Return class logits at `2 ** stages` times the grid of the features."""
        logits: Tensor = self.decode(self.mix(torch.cat(features, 1)))
        return logits
