"""The 3-D UniFormer of BrainMVP (arXiv:2410.10604; its models/uniformer_blocks.py at a466bb2); no library has it."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Literal, cast

from jaxtyping import Float
from timm.layers import Mlp
from timm.models.vision_transformer import Attention
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nnunet_fm.encoders.contract import ZERO_TO_ONE, FeatureInfo, InputSpec, check_sides
from nnunet_fm.encoders.families.timm_vit import checked_taps, parameters_without

HEAD = 64  # channels of an attention head


class PatchMerging(nn.Module):
    """Half the resolution: a convolution of kernel 2 and stride 2, then LayerNorm over the channels."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(width_in, width, 2, 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "b d i j k"]) -> Float[Tensor, "b e i2 j2 k2"]:
        """Eight cells become one."""
        return self.norm(self.proj(x).movedim(1, -1)).movedim(-1, 1)


class LocalBlock(nn.Module):
    """Convolutions all through: a depthwise one of 5^3 in the place of attention, BatchNorm, an MLP of 1^3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Conv3d(width, width, 3, padding=1, groups=width)
        self.norm1, self.norm2 = nn.BatchNorm3d(width), nn.BatchNorm3d(width)
        self.conv1, self.conv2 = nn.Conv3d(width, width, 1), nn.Conv3d(width, width, 1)
        self.attn = nn.Conv3d(width, width, 5, padding=2, groups=width)
        widen, narrow = nn.Conv3d(width, 4 * width, 1), nn.Conv3d(4 * width, width, 1)
        self.mlp = nn.Sequential(OrderedDict(fc1=widen, act=nn.GELU(), fc2=narrow))

    def forward(self, x: Float[Tensor, "b d i j k"]) -> Float[Tensor, "b d i j k"]:
        """Positions, local mixing, MLP; each added."""
        x = x + self.pos_embed(x)
        x = x + self.conv2(self.attn(self.conv1(self.norm1(x))))
        return x + self.mlp(self.norm2(x))


class GlobalBlock(nn.Module):
    """A transformer's block, with positions from a depthwise convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Conv3d(width, width, 3, padding=1, groups=width)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, max(1, width // HEAD), qkv_bias=True)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Float[Tensor, "b d i j k"]) -> Float[Tensor, "b d i j k"]:
        """Positions, attention over all cells, MLP; each added."""
        x = x + self.pos_embed(x)
        grid, tokens = x.shape[2:], x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attn(self.norm1(tokens))
        tokens = tokens + self.mlp(self.norm2(tokens))
        return tokens.transpose(1, 2).unflatten(2, grid)


class VolumeUniFormer(nn.Module):
    """Four stages, two of convolutions and two of attention, on one channel; every size that is a multiple of 16.

    The authors turn (x, y, z) into (z, x, y) themselves; here nnU-Net's (z, y, x) is turned into
    that order, and the maps back.

    Args:
        taps: numbers of the stages whose maps are given; all if None. the last one's goes through
            the final norm.
        widths: channels of the stages.
        depths: blocks of the stages.
    """

    kind: Literal["tokens", "pyramid"] = "pyramid"
    in_channels = 1

    def __init__(
        self,
        taps: Sequence[int] | None = None,
        widths: Sequence[int] = (64, 128, 320, 512),
        depths: Sequence[int] = (3, 4, 8, 3),
    ) -> None:
        super().__init__()
        self.taps = checked_taps(taps, len(widths), range(len(widths)))
        self.stages, self.gradient_checkpointing = len(widths), False
        body: dict[str, nn.Module] = {}
        for n, (above, width, depth) in enumerate(
            zip((1, *widths), widths, depths, strict=False), start=1
        ):
            block = LocalBlock if n <= 2 else GlobalBlock
            body[f"patch_embed{n}"] = PatchMerging(above, width)
            body[f"blocks{n}"] = nn.ModuleList(block(width) for _ in range(depth))
        self.uniformer = nn.ModuleDict({**body, "norm": nn.BatchNorm3d(widths[-1])})
        self.input_spec = InputSpec(
            3, 2**self.stages, (96,) * 3, axis_order="zxy", orientation="RAS", intensity=ZERO_TO_ONE
        )
        self.feature_info = [
            FeatureInfo(widths[n], 2 ** (n + 1), f"blocks{n + 1}") for n in self.taps
        ]

    def features(self, x: Float[Tensor, "b c z y x"]) -> list[Float[Tensor, "b d tz ty tx"]]:
        """Maps of the tapped stages.

        Raises:
            ValueError: a side of the input is no multiple of 16.
        """
        check_sides(x.shape[2:], self.input_spec.divisor, "largest stride")
        x, maps = x.transpose(3, 4), []
        for n in range(1, self.taps[-1] + 2):
            x = self.uniformer[f"patch_embed{n}"](x)
            for block in cast(nn.ModuleList, self.uniformer[f"blocks{n}"]):
                x = (
                    checkpoint(block, x, use_reentrant=False)
                    if self.gradient_checkpointing
                    else block(x)
                )
            if n == self.stages:
                x = self.uniformer["norm"](x)
            maps.append(x)
        return [maps[n].transpose(3, 4) for n in self.taps]

    def embed(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d"]:
        """The mean over the last tapped map."""
        return self.features(x)[-1].mean((2, 3, 4))

    def parameters_in_use(self) -> Iterator[nn.Parameter]:
        """The parameters that reach the features: not those of stages below the last tap."""
        below = range(self.taps[-1] + 2, self.stages + 1)
        names = [f"{part}{n}" for n in below for part in ("patch_embed", "blocks")] + [
            "norm"
        ] * bool(below)
        return parameters_without(self.uniformer, (self.uniformer[name] for name in names))

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        self.gradient_checkpointing = enabled
