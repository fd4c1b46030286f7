"""Primus (Wald et al., arXiv:2503.01835) as OpenMind pretrained it, from dynamic-network-architectures' parts."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

from dynamic_network_architectures.building_blocks.eva import Eva
from dynamic_network_architectures.building_blocks.patch_encode_decode import PatchEmbed
from jaxtyping import Float
from timm.layers import RotaryEmbeddingCat
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from nnunet_fm.encoders.contract import Z_SCORE_EVERYWHERE, FeatureInfo, InputSpec, check_sides
from nnunet_fm.encoders.families.timm_vit import checked_taps, default_taps, parameters_without
from nnunet_fm.internal.errors import InputError

ORDERS = ("hwd", "whd")
POSITIONS = ("interpolate", "crop")


class VolumePrimus(nn.Module):
    """A transformer with learned and rotary positions, on one channel.

    Args:
        taps: blocks whose output is given, 0-based, increasing; the last block's goes through the
            final norm. the last of each quarter if None.
        image_size: side of the cubes of pretraining, in voxels.
        patch_size: side of a patch, in voxels.
        width, depth, num_heads: of the transformer; those of Primus-M.
        token_order: in which order the weights saw their tokens. nnssl's MAE and its kin exchange
            the first two axes (`hwd`); SimMIM and dynamic-network-architectures' own Primus do not
            (`whd`). Shapes and names are the same.
        positions: on another grid than the native one, learned positions are resized
            (`interpolate`, trilinear, float32), or those of the middle are taken (`crop`), which
            agrees with the rotary ones.

    Raises:
        ValueError: another order or way of positions, or a tap outside the blocks.
    """

    kind: Literal["tokens", "pyramid"] = "tokens"
    in_channels = 1

    def __init__(
        self,
        taps: Sequence[int] | None = None,
        image_size: int = 160,
        patch_size: int = 8,
        width: int = 864,
        depth: int = 16,
        num_heads: int = 12,
        token_order: str = "hwd",
        positions: str = "interpolate",
    ) -> None:
        super().__init__()
        for name, given, allowed in (
            ("token_order", token_order, ORDERS),
            ("positions", positions, POSITIONS),
        ):
            if given not in allowed:
                raise InputError(f"{name} {given!r}; allowed: {', '.join(allowed)}")
        self.side = image_size // patch_size
        self.down_projection = PatchEmbed((patch_size,) * 3, 1, width)
        self.eva = Eva(
            width,
            depth,
            num_heads,
            ref_feat_shape=(self.side,) * 3,
            init_values=0.1,
            scale_attn_inner=True,
        )
        self.taps = checked_taps(taps, depth, default_taps(depth))
        self.depth, self.exchanged, self.positions = depth, token_order == "hwd", positions
        self.gradient_checkpointing = False
        self.input_spec = InputSpec(
            3,
            patch_size,
            (image_size,) * 3,
            "zyx",
            orientation="as acquired",
            intensity=Z_SCORE_EVERYWHERE,
        )
        self.feature_info = [FeatureInfo(width, patch_size, f"eva.blocks.{i}") for i in self.taps]

    def features(self, x: Float[Tensor, "b c z y x"]) -> list[Float[Tensor, "b d tz ty tx"]]:
        """Tokens of the tapped blocks as feature maps.

        Raises:
            ValueError: a side of the input is no multiple of the patch; a grid larger than the
                native one with `crop`.
        """
        check_sides(x.shape[2:], self.input_spec.divisor, "patch size")
        patches = self._exchange(self.down_projection(x))
        grid = tuple(patches.shape[2:])
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = tokens + self._learned(grid)
        rope, found = self._rope(grid).to(tokens.device), []
        for number, block in enumerate(self.eva.blocks[: self.taps[-1] + 1]):
            if self.gradient_checkpointing:
                tokens = checkpoint(block, tokens, rope=rope, use_reentrant=False)
            else:
                tokens = block(tokens, rope=rope)
            if number in self.taps:
                found.append(self.eva.norm(tokens) if number == self.depth - 1 else tokens)
        return [self._exchange(t.transpose(1, 2).unflatten(2, grid)) for t in found]

    def embed(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d"]:
        """The mean over the last tapped map."""
        return self.features(x)[-1].mean((2, 3, 4))

    def _exchange(self, x: Float[Tensor, "b d i j k"]) -> Tensor:
        return x.transpose(2, 3) if self.exchanged else x

    def _learned(self, grid: tuple[int, ...]) -> Float[Tensor, "1 n d"]:
        """At the native grid untouched."""
        native = cast(Tensor, self.eva.pos_embed)
        if grid == (self.side,) * 3:
            return native
        cube = native.transpose(1, 2).unflatten(2, (self.side,) * 3)
        if self.positions == "interpolate":
            cube = functional.interpolate(cube.float(), grid, mode="trilinear", align_corners=False)
        elif max(grid) > self.side:
            raise InputError(
                f"positions 'crop' with a grid of {grid}; allowed: up to {self.side} a side"
            )
        else:
            for axis, side in enumerate(grid, start=2):
                cube = cube.narrow(axis, (self.side - side) // 2, side)
        return cube.flatten(2).transpose(1, 2)

    def _rope(self, grid: tuple[int, ...]) -> Float[Tensor, "n r"]:
        """Rotary positions, a unit apart whatever the grid."""
        shape, dim = list(grid), cast(Any, self.eva.rope).dim
        made = RotaryEmbeddingCat(dim, in_pixels=False, feat_shape=shape, ref_feat_shape=shape)
        return cast(Tensor, made.pos_embed)

    def parameters_in_use(self) -> Iterator[nn.Parameter]:
        """The parameters that reach the features: not those above the last tap."""
        norm = [self.eva.norm] if self.taps[-1] < self.depth - 1 else []
        return parameters_without(self, [*self.eva.blocks[self.taps[-1] + 1 :], *norm])

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        self.gradient_checkpointing = enabled

    def set_fused_attention(self, enabled: bool) -> None:
        """Torch's fused attention: the same result, less memory."""
        for block in self.eva.blocks:
            cast(Any, block).attn.fused_attn = enabled
