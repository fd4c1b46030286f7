"""A decoder of a user, named by its dotted path."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from nnunet_fm.encoders.contract import FeatureInfo
from nnunet_fm.network.decoders import Decoder


class OwnDecoder(Decoder):
    """1x1 convolutions on the last map, resized to the image."""

    spatial_dims = 2
    kind = "tokens"

    def __init__(
        self,
        feature_info: Sequence[FeatureInfo],
        num_classes: int,
        stages: int,
        input_channels: int,
        depth: int = 1,
    ) -> None:
        super().__init__()
        width = feature_info[-1].channels
        self.hidden = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(depth))
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: list[Tensor], image: Tensor) -> Tensor:
        x = features[-1]
        for hidden in self.hidden:
            x = functional.gelu(hidden(x))
        return functional.interpolate(self.head(x), image.shape[2:], mode="bilinear")
