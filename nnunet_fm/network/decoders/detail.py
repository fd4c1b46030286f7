"""A U-Net that sees the image, to whose skips the features are added through gates."""

from collections.abc import Mapping, Sequence
from math import log2
from typing import Any, ClassVar

from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from jaxtyping import Float
from torch import Tensor, nn, zeros
from torch.nn import functional

from nnunet_fm.encoders.contract import FeatureInfo
from nnunet_fm.internal.errors import InputError
from nnunet_fm.network.decoders.base import Decoder
from nnunet_fm.network.decoders.unet import CONVOLUTIONS, unet_decoder, unet_encoder
from nnunet_fm.network.fusion import SEPARATE

WIDTH = 16  # channels at full resolution
RANK = 32  # of the projection of features to a level
# Learning rate of the gates, as a multiple of the other weights'. At 1 they hardly open in a short
# training: after 480 steps of 1e-3, features were 1 % of a skip.
GATE_RATE = 30
BLOCKS = 2  # convolutions of a level, as nnU-Net's
LIMITS = {"width": (1, 512), "levels": (2, 8), "rank": (1, 1024), "gate_rate": (1, 1000)}
FEWEST_LEVELS = 5  # where the patch allows: down to 1/16, nnU-Net's reach for small patches


class DetailDecoder(Decoder):
    """nnU-Net's plain U-Net on all channels of the image, narrow, with the features in its skips.

    Level n has `width * 2**n` channels at stride `2**n`. Its skip becomes `skip + gate * P(map)`:
    P is a projection of low rank, the map is resized to the level, and there is one gate for each
    channel. Early taps go to fine levels and late ones to coarse levels; maps of several
    resolutions go to the nearest level. All gates start at zero, so that the training starts with
    the U-Net alone; without features it is that U-Net.

    Args:
        feature_info: the tapped feature maps; empty for the U-Net alone.
        num_classes: output channels.
        stages: number of doublings from the tokens to the image.
        input_channels: of the image.
        width: channels at full resolution.
        levels: of the U-Net; `stages + 1` if None.
        rank: of the projections.
        gate_rate: learning rate of the gates, as a multiple of the other weights'.

    Raises:
        InputError: an option is out of range.
    """

    spatial_dims = 2
    kind = "tokens"
    needs_features = False
    fusion: ClassVar[str | None] = SEPARATE  # no gradient has to cross the encoder

    def __init__(
        self,
        feature_info: Sequence[FeatureInfo],
        num_classes: int,
        stages: int,
        input_channels: int,
        width: int = WIDTH,
        levels: int | None = None,
        rank: int = RANK,
        gate_rate: int = 1,
    ) -> None:
        super().__init__()
        levels = stages + 1 if levels is None else levels
        _check_options({"width": width, "levels": levels, "rank": rank, "gate_rate": gate_rate})
        self.stride = 2 ** (levels - 1)
        dims = self.spatial_dims
        widths = [width * 2**level for level in range(levels)]
        steps = [1, *([2] * (levels - 1))]
        self.encode = unet_encoder(dims, input_channels, widths, BLOCKS)
        self.decode = unet_decoder(dims, widths, steps, num_classes, BLOCKS)
        self.apply(InitWeights_He(1e-2))
        self.taps: list[int] = []  # of each level
        if feature_info:
            self.taps = [_tap_of(level, levels, feature_info) for level in range(levels)]
        self.gates = nn.ModuleList(
            FeatureGate(dims, feature_info[tap].channels, channels, rank, gate_rate)
            for tap, channels in zip(self.taps, widths, strict=False)
        )

    @classmethod
    def sees_image(cls, feature_info: Sequence[FeatureInfo]) -> bool:
        """Whether it uses the image: always."""
        return True

    @classmethod
    def plan_options(
        cls, options: Mapping[str, Any], patch: Sequence[int], stages: int
    ) -> dict[str, Any]:
        """Return width, levels and rate of the gates.

        The levels reach down to the tokens, and to 1/16 where the patch allows it.

        Raises:
            InputError: the patch is smaller than two cells of the coarsest level, or no multiple
                of its stride.
        """
        reachable = all(side % 2 ** (FEWEST_LEVELS - 1) == 0 for side in patch)
        levels = max(stages + 1, FEWEST_LEVELS) if reachable else stages + 1
        chosen = {"width": WIDTH, "levels": levels, "gate_rate": GATE_RATE, **options}
        _check_options(chosen)
        stride = 2 ** (chosen["levels"] - 1)
        if min(patch) < 2 * stride or any(side % stride for side in patch):
            raise InputError(
                f"patch {'x'.join(map(str, patch))} with the {chosen['levels']} levels of decoder "
                f"detail; allowed: multiples of {stride} from {2 * stride} on, or fewer levels "
                "(--decoder-option levels=N)"
            )
        return chosen

    def forward(
        self, features: list[Tensor], image: Float[Tensor, "b c *grid"]
    ) -> Float[Tensor, "b k *grid"]:
        """Return class logits at the size of the image; the maps may differ in size."""
        skips: list[Tensor] = self.encode(image)
        if features:
            skips = [
                gate(skip, features[tap])
                for skip, gate, tap in zip(skips, self.gates, self.taps, strict=True)
            ]
        logits: Tensor = self.decode(skips)
        return logits


class VolumeDetailDecoder(DetailDecoder):
    """The same for tokens of volumes."""

    spatial_dims = 3


class PyramidDetailDecoder(VolumeDetailDecoder):
    """The same for maps of volumes at several resolutions."""

    kind = "pyramid"


class SlicePyramidDetailDecoder(DetailDecoder):
    """The same for maps of slices at several resolutions."""

    kind = "pyramid"


class FeatureGate(nn.Module):
    """Adds features to a skip: `skip + gate * P(map)`, with P of low rank and the gate at zero.

    Args:
        dims: 2 or 3.
        features: channels of the map.
        channels: of the skip.
        rank: of P.
        rate: the gate is a weight times `rate`. Adam moves every weight by about the learning
            rate, whatever its gradient, so that the gate learns `rate` times as fast.
    """

    def __init__(self, dims: int, features: int, channels: int, rank: int, rate: int) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[dims]
        self.reduce = convolution(features, rank, 1, bias=False)
        self.expand = convolution(rank, channels, 1)
        self.gate = nn.Parameter(zeros(channels))
        self.rate = rate
        self.mode = "bilinear" if dims == 2 else "trilinear"

    def forward(
        self, skip: Float[Tensor, "b c *grid"], features: Float[Tensor, "b d *cells"]
    ) -> Float[Tensor, "b c *grid"]:
        """Project on the map's own grid, which is small, then resize and add."""
        gate = self.rate * self.gate.view(-1, *[1] * (skip.dim() - 2))
        added = gate * self.expand(self.reduce(features))
        size = skip.shape[2:]
        if added.shape[2:] != size:
            added = functional.interpolate(added, size, mode=self.mode, align_corners=False)
        return skip + added


def _tap_of(level: int, levels: int, feature_info: Sequence[FeatureInfo]) -> int:
    """Choose the map of a level: by depth if all have one stride, else by the nearest stride."""
    if len({info.stride for info in feature_info}) == 1:
        return round(level / (levels - 1) * (len(feature_info) - 1))
    return min(
        range(len(feature_info)), key=lambda tap: abs(log2(feature_info[tap].stride) - level)
    )


def _check_options(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        low, high = LIMITS[name]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise InputError(
                f"decoder option {name}={value!r}; allowed: a whole number from {low} to {high}"
            )
