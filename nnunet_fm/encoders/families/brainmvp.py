"""BrainMVP: a 3-D UniFormer, which no library has.

arXiv:2410.10604; the authors' models/uniformer_blocks.py at a466bb2.
"""

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import cast

from jaxtyping import Float
from timm.layers import Mlp
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from nnunet_fm.encoders.axes import Turn
from nnunet_fm.encoders.contract import (
    ZERO_TO_ONE,
    Encoder,
    FeatureInfo,
    InputSpec,
    check_sides,
    parameters_without,
)
from nnunet_fm.encoders.key_format import PROJECTORS, Converted, KeyFormat, place_under
from nnunet_fm.encoders.registry import (
    register_architecture,
    register_cards,
    register_key_format,
)
from nnunet_fm.encoders.taps import checked_taps
from nnunet_fm.encoders.weight_card import WeightCard

HEAD = 64  # channels of an attention head
_EXCLUDED = re.compile(r"decoder\..*|rep_template")


class PatchMerging(nn.Module):
    """Halve the resolution: convolution of kernel 2 and stride 2, then LayerNorm over channels."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(width_in, width, 2, 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "b d i j k"]) -> Float[Tensor, "b e i2 j2 k2"]:
        """Merge eight cells into one."""
        return self.norm(self.proj(x).movedim(1, -1)).movedim(-1, 1)


class LocalBlock(nn.Module):
    """Convolutional block: depthwise 5^3 instead of attention, BatchNorm, an MLP of 1^3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Conv3d(width, width, 3, padding=1, groups=width)
        self.norm1 = nn.BatchNorm3d(width)
        self.norm2 = nn.BatchNorm3d(width)
        self.conv1 = nn.Conv3d(width, width, 1)
        self.conv2 = nn.Conv3d(width, width, 1)
        self.attn = nn.Conv3d(width, width, 5, padding=2, groups=width)
        widen = nn.Conv3d(width, 4 * width, 1)
        narrow = nn.Conv3d(4 * width, width, 1)
        self.mlp = nn.Sequential(OrderedDict(fc1=widen, act=nn.GELU(), fc2=narrow))

    def forward(self, x: Float[Tensor, "b d i j k"]) -> Float[Tensor, "b d i j k"]:
        """Add positions, local mixing and MLP, each as a residual."""
        x = x + self.pos_embed(x)
        x = x + self.conv2(self.attn(self.conv1(self.norm1(x))))
        return x + self.mlp(self.norm2(x))


class GlobalBlock(nn.Module):
    """Transformer block with positions from a depthwise convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Conv3d(width, width, 3, padding=1, groups=width)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, max(1, width // HEAD), qkv_bias=True)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Float[Tensor, "b d i j k"]) -> Float[Tensor, "b d i j k"]:
        """Add positions, attention over all cells and MLP, each as a residual."""
        x = x + self.pos_embed(x)
        grid = x.shape[2:]
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attn(self.norm1(tokens))
        tokens = tokens + self.mlp(self.norm2(tokens))
        return tokens.transpose(1, 2).unflatten(2, grid)


class VolumeUniFormer(Encoder):
    """Four stages on one channel: two of convolutions, two of attention.

    Sides are multiples of 16. The authors reorder (x, y, z) to (z, x, y); here nnU-Net's (z, y, x)
    is reordered to the same, and the maps back.

    Args:
        taps: numbers of the stages whose maps are returned; all if None. The last stage's goes
            through the final norm.
        widths: channels of the stages.
        depths: blocks of the stages.
        image_orientation: of the images that the encoder is used on, e.g. `LPS`, to turn them to
            the RAS of the pretraining; None leaves them as they are.
    """

    kind = "pyramid"
    in_channels = 1

    def __init__(
        self,
        taps: Sequence[int] | None = None,
        widths: Sequence[int] = (64, 128, 320, 512),
        depths: Sequence[int] = (3, 4, 8, 3),
        image_orientation: str | None = None,
    ) -> None:
        super().__init__()
        self.taps = checked_taps(taps, len(widths), range(len(widths)))
        self.stages = len(widths)
        self.turn: Turn = Turn("zxy", image_orientation)
        body: dict[str, nn.Module] = {}
        inputs = (1, *widths[:-1])
        for n, width_in, width, count in zip(
            range(1, self.stages + 1), inputs, widths, depths, strict=True
        ):
            block = LocalBlock if n <= 2 else GlobalBlock
            body[f"patch_embed{n}"] = PatchMerging(width_in, width)
            body[f"blocks{n}"] = nn.ModuleList(block(width) for _ in range(count))
        self.uniformer = nn.ModuleDict({**body, "norm": nn.BatchNorm3d(widths[-1])})
        self.input_spec = InputSpec(
            3, 2**self.stages, (96,) * 3, axis_order="zxy", orientation="RAS", intensity=ZERO_TO_ONE
        )
        self.feature_info = [
            FeatureInfo(widths[n], 2 ** (n + 1), f"blocks{n + 1}") for n in self.taps
        ]

    def features(self, x: Float[Tensor, "b c z y x"]) -> list[Float[Tensor, "b d tz ty tx"]]:
        """Return the maps of the tapped stages.

        Raises:
            InputError: a side of the input is not a multiple of 16.
        """
        check_sides(x.shape[2:], self.input_spec.divisor, "largest stride")
        x = self.turn.apply(x)
        maps = []
        for n in range(1, self.taps[-1] + 2):
            x = self.uniformer[f"patch_embed{n}"](x)
            for block in cast(nn.ModuleList, self.uniformer[f"blocks{n}"]):
                x = self.run_block(block, x)
            if n == self.stages:
                x = self.uniformer["norm"](x)
            maps.append(x)
        return [self.turn.undo(maps[n]) for n in self.taps]

    def active_parameters(self) -> Iterator[nn.Parameter]:
        """Yield all parameters except those of stages above the last tap."""
        unused = []
        for n in range(self.taps[-1] + 2, self.stages + 1):
            unused += [self.uniformer[f"patch_embed{n}"], self.uniformer[f"blocks{n}"]]
        if unused:
            unused.append(self.uniformer["norm"])
        return parameters_without(self.uniformer, unused)


def from_brainmvp(state: Mapping[str, Tensor]) -> Converted:
    """Convert BrainMVP's names; the decoder and the learned templates are dropped."""
    reason = "decoder or template of the pretraining"
    return place_under(state, "uniformer.", _EXCLUDED, reason)


def _is_brainmvp(state: Mapping[str, Tensor]) -> bool:
    name = "patch_embed1.proj.weight"
    return name in state or f"uniformer.{name}" in state


register_architecture("brainmvp_uniformer", VolumeUniFormer)
register_architecture(
    "volume_testuniformer",
    partial(VolumeUniFormer, widths=(4, 6, 8, 16), depths=(1, 1, 2, 1)),
    PROJECTORS,
)
register_key_format(KeyFormat("BrainMVP", _is_brainmvp, from_brainmvp))
register_cards(
    WeightCard(
        name="brainmvp_uniformer.mri16k",
        architecture="brainmvp_uniformer",
        licence="none found",
        source="BrainMVP_uniformer.pt of the authors, https://github.com/shaohao011/BrainMVP",
        pretrained_on=(
            "BraTS2021",
            "TCGA-GBM",
            "TCGA-LGG",
            "BraTS2023-SSA",
            "BraTS2023-MEN",
            "others, see its paper",
        ),
        citation="arXiv:2410.10604",
        spatial_dims=3,
    )
)
