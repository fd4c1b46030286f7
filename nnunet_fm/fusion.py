"""Fusion of any number of MRI channels to the channels of the encoder."""

import re
from dataclasses import dataclass

from torch import nn

MODES = "learnable, fixed, learnable_then_fixed(EPOCHS)"


class Fusion(nn.Conv2d):
    """1x1 convolution without bias, every weight 1/C: an equal-weight average of the C input channels.

    Paper section 4.3.1 for C = 4; here for any C >= 1, always renormalised to a true average.
    """

    def __init__(self, input_channels: int, encoder_channels: int) -> None:
        super().__init__(_checked(input_channels), encoder_channels, 1, bias=False)
        nn.init.constant_(self.weight, 1 / input_channels)


class VolumeFusion(nn.Conv3d):
    """The same for volumes.

    In front of a one-channel encoder and fixed, this is the first convolution's weights repeated and divided by C, bias
    kept (BrainDINO, section 4.3.1, "repeating and rescaling"); such an encoder cannot tell its channels apart.
    """

    def __init__(self, input_channels: int, encoder_channels: int) -> None:
        super().__init__(_checked(input_channels), encoder_channels, 1, bias=False)
        nn.init.constant_(self.weight, 1 / input_channels)


FUSIONS: dict[int, type[Fusion] | type[VolumeFusion]] = {2: Fusion, 3: VolumeFusion}  # by spatial dimensions


def _checked(input_channels: int) -> int:
    if input_channels < 1:
        raise ValueError(f"{input_channels} input channels given; allowed: 1 or more")
    return input_channels


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
