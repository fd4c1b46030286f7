"""The base class of decoders."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from nnunet_fm.encoders.contract import FeatureInfo


class Decoder(nn.Module):
    """A decoder from tapped features, and the image if it uses it, to class logits.

    Built as `decoder(feature_info, num_classes, stages, input_channels, **options)`, where `stages`
    is the number of doublings from the tokens to the image and `options` are what the plans hold.
    Called as `decoder(features, image)`: one map (b, d, *grid) for each of `feature_info`, and the
    image (b, c, *patch) with all its channels. It returns class logits (b, num_classes, *patch).

    Attributes:
        spatial_dims: of the features that it takes, 2 or 3.
        kind: of the features that it takes, `tokens` or `pyramid`, as in `Encoder`.
        needs_features: whether it needs features. If not, it may be built with an empty
            `feature_info` and called with an empty list (`nnunet-fm plan --tokens off`).
        fusion: the fusion that `nnunet-fm plan` chooses for it; None for the preset's.
        stride: sides of the image must be multiples of it, and of the stride of the tokens.
        deep_supervision: always False: there is one output. nnU-Net sets it on every decoder.
    """

    spatial_dims: ClassVar[int]
    kind: ClassVar[str]
    needs_features: ClassVar[bool] = True
    fusion: ClassVar[str | None] = None
    stride: int = 1
    deep_supervision = False

    @classmethod
    def sees_image(cls, feature_info: Sequence[FeatureInfo]) -> bool:
        """Whether it uses the image besides these features; by default not."""
        return False

    @classmethod
    def plan_options(
        cls, options: Mapping[str, Any], patch: Sequence[int], stages: int
    ) -> dict[str, Any]:
        """Return the options to write into the plans; by default those that the user gave.

        Args:
            options: of the user.
            patch: sides of the input, in pixels or voxels.
            stages: number of doublings from the tokens to the image.

        Raises:
            InputError: an option that does not fit the patch.
        """
        return dict(options)
