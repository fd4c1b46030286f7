"""What DINO's transformers of one channel share; the families FlexiCT and 3DINO build on it."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nnunet_fm.encoders.axes import Turn
from nnunet_fm.encoders.contract import (
    Encoder,
    FeatureInfo,
    InputSpec,
    check_sides,
    groups_around_blocks,
    parameters_without,
)
from nnunet_fm.encoders.taps import checked_taps, default_taps
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown

EPS = 1e-6  # of every LayerNorm


class DinoTokens(Encoder):
    """A transformer with a CLS token in front of its patches, in two or three dimensions.

    A subclass makes the patches and their positions (`embedded`). Every tapped map goes through the
    final norm, as the authors of both families do.

    Args:
        blocks: of the transformer, called as `block(tokens, **arguments)`.
        width: of the tokens.
        taps: tapped blocks, 0-based, increasing; the last of each quarter if None.
        input_spec: of the encoder.
        turn: to the axes of the pretraining; None for slices.
        pool: what `embed` returns: the `cls` token, the `mean` of the patches, or `both`, one
            behind the other.

    Raises:
        InputError: a tap outside the blocks, or an unknown pool.
    """

    kind = "tokens"
    in_channels = 1
    pools: ClassVar[tuple[str, ...]] = ("cls", "mean", "both")
    prefix = 1  # tokens in front of the patches

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        width: int,
        taps: Sequence[int] | None,
        input_spec: InputSpec,
        turn: Turn | None,
        pool: str,
    ) -> None:
        super().__init__()
        if pool not in self.pools:
            raise InputError(unknown("pool", pool, self.pools))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, EPS)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width).normal_(std=0.02))
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.depth, self.width, self.pool = len(blocks), width, pool
        self.taps = checked_taps(taps, self.depth, default_taps(self.depth))
        self.input_spec, self.turn = input_spec, turn
        self.feature_info = [
            FeatureInfo(width, input_spec.divisor, f"blocks.{tap}") for tap in self.taps
        ]

    def embedded(self, x: Tensor) -> tuple[Float[Tensor, "b n d"], tuple[int, ...], dict[str, Any]]:
        """Return the tokens, the grid of the patches, and further arguments of the blocks.

        Args:
            x: input in the axes of the pretraining.
        """
        raise NotImplementedError

    def features(self, x: Float[Tensor, "b c *grid"]) -> list[Float[Tensor, "b d *cells"]]:
        """Return the patch tokens of the tapped blocks after the final norm, as maps.

        Raises:
            InputError: a side of the input is not a multiple of the patch.
        """
        outputs, grid = self._outputs(x, self.taps)
        maps = [t[:, self.prefix :].transpose(1, 2).unflatten(2, grid) for t in outputs]
        return maps if self.turn is None else [self.turn.undo(found) for found in maps]

    def embed(self, x: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b d"]:
        """Return the CLS token after the final norm, or what `pool` says."""
        outputs, _ = self._outputs(x, (self.depth - 1,))
        return self._pooled(outputs[0])

    @property
    def embedded_layers(self) -> tuple[int, ...]:
        """The tapped blocks."""
        return self.taps

    def embed_taps(self, x: Float[Tensor, "b c *grid"]) -> list[Float[Tensor, "b d"]]:
        """Return what `embed` returns, for each tapped block."""
        return [self._pooled(tokens) for tokens in self._outputs(x, self.taps)[0]]

    def _pooled(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b e"]:
        first, mean = tokens[:, 0], tokens[:, self.prefix :].mean(1)
        if self.pool == "cls":
            return first
        return mean if self.pool == "mean" else torch.cat([first, mean], 1)

    def _outputs(self, x: Tensor, taps: Sequence[int]) -> tuple[list[Tensor], tuple[int, ...]]:
        """Return all tokens of some blocks after the final norm, and the grid of the patches."""
        check_sides(x.shape[2:], self.input_spec.divisor, "patch size")
        turned = x if self.turn is None else self.turn.apply(x)
        tokens, grid, arguments = self.embedded(turned)
        outputs = []
        for number, block in enumerate(self.blocks[: taps[-1] + 1]):
            tokens = self.run_block(block, tokens, **arguments)
            if number in taps:
                outputs.append(self.norm(tokens))
        return outputs, grid

    def active_parameters(self) -> Iterator[nn.Parameter]:
        """Yield all parameters except the mask token and those of blocks above the last tap."""
        below = parameters_without(self, self.blocks[self.taps[-1] + 1 :])
        return (p for p in below if p is not self.mask_token)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return the embeddings, each block, and the final norm."""
        return groups_around_blocks(self, self.blocks, self.norm)

    def set_fused_attention(self, enabled: bool) -> None:
        """Use torch's fused attention: the same result with less memory."""
        for block in self.blocks:
            attention: Any = block.attn
            attention.fused_attn = enabled
