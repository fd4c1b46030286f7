"""Encoder classes of a user, named by their dotted path."""

from typing import Any

from torch import Tensor, nn

from nnunet_fm.encoders import FeatureInfo, InputSpec


class OwnEncoder(nn.Module):
    """One map of 8 x 8 patches of a single channel."""

    kind = "tokens"
    in_channels = 1

    def __init__(self, taps: Any = None) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 8, 8, 8)
        self.input_spec = InputSpec(2, 8, (64, 64))
        self.feature_info = [FeatureInfo(8, 8, "blocks.0")]

    def features(self, x: Tensor) -> list[Tensor]:
        return [self.convolution(x)]

    def embed(self, x: Tensor) -> Tensor:
        return self.convolution(x).mean((2, 3))


class OwnVolumeEncoder(OwnEncoder):
    """Not for a 2-D network."""

    def __init__(self, taps: Any = None) -> None:
        super().__init__()
        self.input_spec = InputSpec(3, 8, (64, 64, 64))
