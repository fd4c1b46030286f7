"""Fusion of any number of MRI channels to the channels of the encoder."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from nnunet_fm.internal.errors import InputError

MODES = "learnable, fixed, learnable_then_fixed(EPOCHS), separate"
SEPARATE = "separate"  # no fusion: the encoder is run on each channel


def make_fusion(
    spatial_dims: int,
    input_channels: int,
    encoder_channels: int,
    channels: Sequence[int] | None = None,
) -> nn.Conv2d | nn.Conv3d:
    """Build a 1x1 convolution without bias from C channels to those of the encoder.

    Every weight starts at 1/C: an equal-weight average (BrainDINO, section 4.3.1, for C = 4; here
    for any C >= 1). Fixed, in front of a one-channel encoder of volumes, it is the same as
    repeating the first convolution's weights and dividing them by C, with its bias kept (same
    section, "repeating and rescaling"); such an encoder cannot tell its channels apart. An encoder
    with named channels receives one input channel for each.

    Args:
        spatial_dims: 2 or 3.
        input_channels: C.
        encoder_channels: of the encoder.
        channels: for each channel of the encoder, the number of the input channel that feeds it;
            None for the average.

    Raises:
        InputError: no input channel, or `channels` that do not exist.
    """
    if input_channels < 1:
        raise InputError(f"{input_channels} input channels given; allowed: 1 or more")
    convolution = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
    fusion = convolution(input_channels, encoder_channels, 1, bias=False)
    nn.init.constant_(fusion.weight, 1 / input_channels)
    if channels is None:
        return fusion
    if len(channels) != encoder_channels or not all(0 <= c < input_channels for c in channels):
        raise InputError(
            f"channels {list(channels)}; allowed: one of 0 to {input_channels - 1} for each of the "
            f"encoder's {encoder_channels} channels"
        )
    nn.init.zeros_(fusion.weight)
    for number, channel in enumerate(channels):
        nn.init.ones_(fusion.weight[number, channel])
    return fusion


@dataclass(frozen=True)
class FusionSchedule:
    """How long the fusion learns.

    Attributes:
        learnable_epochs: number of epochs; 0 for never, None for the whole training.
        separate: whether the channels are encoded one by one instead of being fused.
    """

    learnable_epochs: int | None
    separate: bool = False

    @classmethod
    def parse(cls, text: str) -> "FusionSchedule":
        """Read `learnable`, `fixed`, `learnable_then_fixed(10)` or `separate`.

        Raises:
            ValueError: anything else.
        """
        if text == "learnable":
            return cls(None)
        if text == "fixed":
            return cls(0)
        if text == SEPARATE:
            return cls(0, separate=True)
        match = re.fullmatch(r"learnable_then_fixed\((\d+)\)", text)
        if match and int(match[1]) > 0:
            return cls(int(match[1]))
        raise InputError(f"fusion {text!r}; allowed: {MODES}, e.g. learnable_then_fixed(10)")

    def learns(self, epoch: int) -> bool:
        """Whether the fusion learns in this epoch, counted from 0."""
        return self.learnable_epochs is None or epoch < self.learnable_epochs
