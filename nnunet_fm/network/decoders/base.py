"""What every decoder says of itself."""

from typing import ClassVar

from torch import nn


class Decoder(nn.Module):
    """From tapped features, and the image for those that look at it, to class logits.

    Built as `decoder(feature_info, num_classes, stages, input_channels)`, called as
    `decoder(features, image)`.

    Attributes:
        spatial_dims, kind: of the features that it takes, as in `Encoder`.
        deep_supervision: always False: one output. nnU-Net sets it on every decoder.
    """

    spatial_dims: ClassVar[int]
    kind: ClassVar[str]
    deep_supervision = False
