"""The base class of decoders."""

from typing import ClassVar

from torch import nn


class Decoder(nn.Module):
    """A decoder from tapped features, and the image if it uses it, to class logits.

    Built as `decoder(feature_info, num_classes, stages, input_channels)`, called as
    `decoder(features, image)`.

    Attributes:
        spatial_dims: of the features that it takes, 2 or 3.
        kind: of the features that it takes, `tokens` or `pyramid`, as in `Encoder`.
        deep_supervision: always False: there is one output. nnU-Net sets it on every decoder.
    """

    spatial_dims: ClassVar[int]
    kind: ClassVar[str]
    deep_supervision = False
