"""Fusion of any number of MRI channels to the channels of the encoder."""

import re
from dataclasses import dataclass

from torch import nn

MODES = "learnable, fixed, learnable_then_fixed(EPOCHS)"


def make_fusion(spatial_dims: int, input_channels: int, encoder_channels: int) -> nn.Conv2d | nn.Conv3d:
    """Convolution of one pixel or voxel without bias, every weight 1/C: an equal-weight average of the C channels.

    Paper section 4.3.1 for C = 4; here for any C >= 1, always renormalised to a true average. In front of a one-channel
    encoder of volumes and fixed, this is the first convolution's weights repeated and divided by C, its bias kept (the
    same section, "repeating and rescaling"); such an encoder cannot tell its channels apart.

    Raises:
        ValueError: no input channel.
    """
    if input_channels < 1:
        raise ValueError(f"{input_channels} input channels given; allowed: 1 or more")
    convolution = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
    fusion = convolution(input_channels, encoder_channels, 1, bias=False)
    nn.init.constant_(fusion.weight, 1 / input_channels)
    return fusion


@dataclass(frozen=True)
class FusionSchedule:
    """Until which epoch the fusion learns: never (0), to the end (None), or so many epochs."""

    learnable_epochs: int | None

    @classmethod
    def parse(cls, text: str) -> "FusionSchedule":
        """Read `learnable`, `fixed` or `learnable_then_fixed(10)`.

        Raises:
            ValueError: anything else.
        """
        if text == "learnable":
            return cls(None)
        if text == "fixed":
            return cls(0)
        match = re.fullmatch(r"learnable_then_fixed\((\d+)\)", text)
        if match and int(match[1]) > 0:
            return cls(int(match[1]))
        raise ValueError(f"fusion {text!r}; allowed: {MODES}, e.g. learnable_then_fixed(10)")

    def learns(self, epoch: int) -> bool:
        """Whether the fusion learns in this epoch, counted from 0."""
        return self.learnable_epochs is None or epoch < self.learnable_epochs
