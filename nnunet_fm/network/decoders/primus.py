"""The 2-D Primus decoder of the BrainDINO release, and a light form of it."""

from collections.abc import Sequence

import torch
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from jaxtyping import Float
from torch import Tensor, nn

from nnunet_fm.encoders.contract import FeatureInfo
from nnunet_fm.network.decoders.base import Decoder
from nnunet_fm.network.decoders.tokens import UpStage, to_image, to_tokens


class PrimusDecoder(Decoder):
    """Concatenate the features, double the grid while halving the channels, and a 1x1 head.

    With four taps of 768 channels and stride 16: 3072-1536-768-384-192, then the classes,
    25,076,739 parameters for 3 outputs (paper section 4.3.1; release
    BrainDINO_seg/dinov3/models/primus.py).

    Args:
        feature_info: the tapped feature maps; all of one stride.
        num_classes: output channels.
        stages: number of doublings; the output is `2 ** stages` times the feature grid.
        input_channels: of the image; unused (common decoder signature).
    """

    spatial_dims = 2
    kind = "tokens"

    def __init__(
        self,
        feature_info: Sequence[FeatureInfo],
        num_classes: int,
        stages: int,
        input_channels: int = 0,
    ) -> None:
        super().__init__()
        width = sum(f.channels for f in feature_info)
        self.stages = nn.ModuleList(self._stages(width, stages))
        self.head = _head(width >> stages, num_classes)

    @staticmethod
    def _stages(width: int, stages: int) -> list[nn.Module]:
        return [UpStage(width >> i, width >> (i + 1)) for i in range(stages)]

    def project(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n k"]:
        """Return the tokens that enter the first doubling: unchanged here."""
        return tokens

    def forward(
        self,
        features: list[Float[Tensor, "b d th tw"]],
        image: Float[Tensor, "b c h w"] | None = None,
    ) -> Float[Tensor, "b k h w"]:
        """Return class logits at `2 ** stages` times the grid of the features."""
        grid = (features[0].shape[-2], features[0].shape[-1])
        tokens = self.project(to_tokens(features))
        for stage in self.stages:
            tokens = stage(tokens)
        return to_image(self.head(tokens), grid, len(self.stages))


class LightPrimusDecoder(PrimusDecoder):
    """A Primus decoder after a 1x1 projection to the width of one feature map.

    It takes about a sixth of the parameters and operations. The idea is FlexiCT's `Primus_v2`. With
    ViT-B/16 and 3 outputs: 3.9 M parameters.
    """

    def __init__(
        self,
        feature_info: Sequence[FeatureInfo],
        num_classes: int,
        stages: int,
        input_channels: int = 0,
    ) -> None:
        width = feature_info[-1].channels
        super().__init__([feature_info[-1]], num_classes, stages)
        self.projection = nn.Linear(sum(f.channels for f in feature_info), width)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def project(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n k"]:
        """Mix the taps to the width of one."""
        projected = self.projection(tokens)
        return self.norm(projected).to(projected.dtype)


def _head(width: int, num_classes: int) -> nn.Linear:
    convolution = nn.Conv2d(width, num_classes, 1)
    InitWeights_He(1e-2)(convolution)
    head = nn.Linear(width, num_classes)
    with torch.no_grad():
        head.weight.copy_(convolution.weight.flatten(1))
        head.bias.zero_()
    return head
