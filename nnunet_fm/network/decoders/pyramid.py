"""The U-Net decoder of dynamic-network-architectures on any pyramid of features."""

from collections.abc import Sequence
from itertools import pairwise

from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks
from jaxtyping import Float
from torch import Tensor, nn

from nnunet_fm.encoders.contract import FeatureInfo
from nnunet_fm.network.decoders.base import Decoder
from nnunet_fm.network.decoders.unet import block_arguments, unet_decoder


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
                **block_arguments(self.spatial_dims),
            )
            channels = [width, *channels]
            strides = [1, *strides]
        steps = [1, *(below // above for above, below in pairwise(strides))]
        self.decode = unet_decoder(self.spatial_dims, channels, steps, num_classes, blocks=1)

    @classmethod
    def sees_image(cls, feature_info: Sequence[FeatureInfo]) -> bool:
        """Whether no map has full resolution, so that there is a stem on the image."""
        return feature_info[0].stride > 1

    def forward(
        self, features: list[Tensor], image: Float[Tensor, "b c *grid"]
    ) -> Float[Tensor, "b k *grid"]:
        """Return class logits at the size of the image."""
        full = [] if self.stem is None else [self.stem(image)]
        logits: Tensor = self.decode([*full, *features])
        return logits


class SlicePyramidDecoder(PyramidDecoder):
    """The same for maps of slices."""

    spatial_dims = 2
