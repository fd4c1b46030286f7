"""MONAI's 3-D vision transformer as an encoder: BrainIAC and VolTA-3D (extra `[volume]`)."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from nnunet_fm.encoders.contract import FeatureInfo, InputSpec, check_sides
from nnunet_fm.encoders.families.timm_vit import checked_taps, parameters_without
from nnunet_fm.internal.errors import InputError

UNUSED = ("cross_attn", "norm_cross_attn")  # made by some versions of MONAI, used by none here


def unetr_taps(depth: int) -> tuple[int, ...]:
    """What UNETR taps: blocks 3, 6, 9 (0-based) and the last for depth 12."""
    return (*(depth * quarter // 4 for quarter in (1, 2, 3)), depth - 1)


class VolumeViT(nn.Module):
    """A plain 3-D ViT on one channel, without a CLS token.

    The weights saw volumes as (x, y, z); nnU-Net's (z, y, x) is turned in front and the features
    are turned back. The position embedding is kept at its native grid and resized trilinearly, in
    float32, to the grid at hand.

    Args:
        taps: blocks whose output is given, 0-based, increasing; the last block's goes through the
            final norm. those of UNETR if None.
        image_size: side of the cube that the position embedding is for, in voxels.
        patch_size: side of a patch, in voxels.
        hidden_size, mlp_dim, depth, num_heads, qkv_bias: of the transformer.
        pool: what `embed` gives: `mean` of the tokens, or the `first` one (BrainIAC's authors: a
            corner patch).

    Raises:
        ValueError: a tap outside the blocks, or an unknown pool.
    """

    kind: Literal["tokens", "pyramid"] = "tokens"
    in_channels = 1
    pools: ClassVar[tuple[str, ...]] = ("mean", "first")

    def __init__(
        self,
        taps: Sequence[int] | None = None,
        image_size: int = 96,
        patch_size: int = 16,
        hidden_size: int = 768,
        mlp_dim: int = 3072,
        depth: int = 12,
        num_heads: int = 12,
        qkv_bias: bool = False,
        pool: str = "mean",
    ) -> None:
        from monai.networks.nets.vit import ViT

        super().__init__()
        if pool not in self.pools:
            raise InputError(f"pool {pool!r}; allowed: {', '.join(self.pools)}")
        shape: dict[str, Any] = {
            "hidden_size": hidden_size,
            "mlp_dim": mlp_dim,
            "num_layers": depth,
        }
        cube = (image_size,) * 3
        self.vit = ViT(1, cube, (patch_size,) * 3, num_heads=num_heads, qkv_bias=qkv_bias, **shape)
        for block in self.vit.blocks:
            for name in UNUSED:
                if hasattr(block, name):
                    delattr(block, name)
        self.taps = checked_taps(taps, depth, unetr_taps(depth))
        self.depth, self.pool, self.side = depth, pool, image_size // patch_size
        self.gradient_checkpointing = False
        self.input_spec = InputSpec(
            3, patch_size, cube, axis_order="xyz", orientation="as acquired"
        )
        self.feature_info = [FeatureInfo(hidden_size, patch_size, f"blocks.{i}") for i in self.taps]

    def features(self, x: Float[Tensor, "b c z y x"]) -> list[Float[Tensor, "b d tz ty tx"]]:
        """Tokens of the tapped blocks as feature maps.

        Raises:
            ValueError: a side of the input is no multiple of the patch.
        """
        tokens, grid = self._embedded(x)
        found = []
        for number, block in enumerate(self.vit.blocks[: self.taps[-1] + 1]):
            tokens = (
                checkpoint(block, tokens, use_reentrant=False)
                if self.gradient_checkpointing
                else block(tokens)
            )
            if number in self.taps:
                found.append(self.vit.norm(tokens) if number == self.depth - 1 else tokens)
        return [self._as_map(t, grid) for t in found]

    def embed(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d"]:
        """One vector: the mean of the last tokens after the final norm, or the first of them."""
        tokens, _ = self._embedded(x)
        for block in self.vit.blocks:
            tokens = block(tokens)
        tokens = self.vit.norm(tokens)
        return tokens[:, 0] if self.pool == "first" else tokens.mean(1)

    def _embedded(
        self, x: Float[Tensor, "b c z y x"]
    ) -> tuple[Float[Tensor, "b n d"], tuple[int, ...]]:
        """Patches and their positions, and the grid in the weights' order of axes."""
        check_sides(x.shape[2:], self.input_spec.divisor, "patch size")
        patches = self.vit.patch_embedding.patch_embeddings(turned(x))
        grid = tuple(patches.shape[2:])
        return patches.flatten(2).transpose(1, 2) + self._positions(grid), grid

    def _as_map(
        self, tokens: Float[Tensor, "b n d"], grid: tuple[int, ...]
    ) -> Float[Tensor, "b d tz ty tx"]:
        return turned(tokens.transpose(1, 2).unflatten(2, grid))

    def _positions(self, grid: tuple[int, ...]) -> Float[Tensor, "1 n d"]:
        """At the native grid untouched."""
        native = self.vit.patch_embedding.position_embeddings
        if grid == (self.side,) * 3:
            return native
        cube = native.float().transpose(1, 2).unflatten(2, (self.side,) * 3)
        return (
            functional.interpolate(cube, grid, mode="trilinear", align_corners=False)
            .flatten(2)
            .transpose(1, 2)
        )

    def parameters_in_use(self) -> Iterator[nn.Parameter]:
        """The parameters that reach the features: not those above the last tap."""
        norm = [self.vit.norm] if self.taps[-1] < self.depth - 1 else []
        return parameters_without(self.vit, [*self.vit.blocks[self.taps[-1] + 1 :], *norm])

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        self.gradient_checkpointing = enabled

    def set_fused_attention(self, enabled: bool) -> None:
        """Torch's fused attention: the same result, less memory."""
        for block in self.vit.blocks:
            cast(Any, block).attn.use_flash_attention = enabled


def turned(x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c k j i"]:
    """The spatial axes the other way round: (z, y, x) to (x, y, z), and back."""
    return x.permute(0, 1, 4, 3, 2)
