"""Encoder classes of a user, named by their dotted path."""

from typing import Any

import torch
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


class FormerEncoder(OwnEncoder):
    """Has what version 0.1 looked for without declaring it."""

    def __init__(self, taps: Any = None) -> None:
        super().__init__()
        self.taps = taps
        self.vit = nn.Module()
        self.vit.blocks = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.vit.norm = nn.LayerNorm(8)

    def embed_taps(self, x: Tensor) -> list[Tensor]:
        return [self.embed(x) for _ in self.taps]

    def parameters_in_use(self) -> list[nn.Parameter]:
        return [self.convolution.weight]


class TwoMaps(OwnEncoder):
    """Declares one map and gives two."""

    def features(self, x: Tensor) -> list[Tensor]:
        return [self.convolution(x), self.convolution(x)]


class WrongStride(OwnEncoder):
    """Declares another stride than its convolution has."""

    def __init__(self, taps: Any = None) -> None:
        super().__init__()
        self.feature_info = [FeatureInfo(8, 4, "blocks.0")]


class WrongChannels(OwnEncoder):
    """Declares more channels than it gives."""

    def __init__(self, taps: Any = None) -> None:
        super().__init__()
        self.feature_info = [FeatureInfo(16, 8, "blocks.0")]


class ReadsValues(OwnEncoder):
    """Needs the values of a tensor to be built."""

    def __init__(self, taps: Any = None, width: int = 8) -> None:
        super().__init__()
        self.widths = [float(value) for value in torch.linspace(1, width, 3)]


class WithoutTaps(OwnEncoder):
    """Cannot be asked for maps."""

    def __init__(self) -> None:
        super().__init__()
