"""The U-Net decoder of dynamic-network-architectures on any pyramid of 3-D features."""

from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from jaxtyping import Float
from torch import Tensor, nn

from nnunet_fm.encoders.contract import FeatureInfo
from nnunet_fm.network.decoders.base import Decoder

BLOCK: dict[str, Any] = {
    "conv_op": nn.Conv3d,
    "conv_bias": True,
    "norm_op": nn.InstanceNorm3d,
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": nn.LeakyReLU,
    "nonlin_kwargs": {"inplace": True},
}


class PyramidDecoder(Decoder):
    """One convolution block per resolution, with skips, as in nnU-Net's residual encoder U-Nets.

    If the finest features are coarser than the image, a trainable stem on the image gives the full
    resolution.

    Args:
        feature_info: maps of increasing strides.
        num_classes: output channels.
        stages: unused (common decoder signature).
        input_channels: of the image.
        width: channels of the stem.
    """

    spatial_dims = 3
    kind = "pyramid"

    def __init__(
        self,
        feature_info: Sequence[FeatureInfo],
        num_classes: int,
        stages: int,
        input_channels: int,
        width: int = 32,
    ) -> None:
        super().__init__()
        channels = [f.channels for f in feature_info]
        strides = [f.stride for f in feature_info]
        self.stem: nn.Module | None = None
        if strides[0] > 1:
            self.stem = StackedConvBlocks(
                2,
                input_channels=input_channels,
                output_channels=width,
                kernel_size=3,
                initial_stride=1,
                **BLOCK,
            )
            channels = [width, *channels]
            strides = [1, *strides]
        steps = [1, *(below // above for above, below in pairwise(strides))]
        pyramid = SimpleNamespace(
            output_channels=channels,
            strides=[[s] * 3 for s in steps],
            kernel_sizes=[[3] * 3] * len(steps),
            **BLOCK,
        )
        self.decode = UNetDecoder(pyramid, num_classes, 1, deep_supervision=False)
        # Only the finest head is used, and DDP expects a gradient for every parameter.
        heads = self.decode.seg_layers
        self.decode.seg_layers = nn.ModuleList([*(nn.Identity() for _ in heads[:-1]), heads[-1]])

    def forward(
        self, features: list[Tensor], image: Float[Tensor, "b c z y x"]
    ) -> Float[Tensor, "b k z y x"]:
        """Return class logits at the size of the image."""
        full = [] if self.stem is None else [self.stem(image)]
        logits: Tensor = self.decode([*full, *features])
        return logits
