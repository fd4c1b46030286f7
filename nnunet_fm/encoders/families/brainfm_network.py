"""The transformer of BrainFM-MRI: patches of several scans, and norms that know the sequence."""

import torch
from jaxtyping import Bool, Float, Int64
from timm.layers import Attention, Mlp
from torch import Tensor, nn
from torch.nn import functional

from nnunet_fm.encoders.families.brainiac import resized_positions

Tokens = Float[Tensor, "b l d"]
Slots = Int64[Tensor, "b l"]
Text = Float[Tensor, "b m w"]


class ConditionalNorm(nn.Module):
    """LayerNorm whose scale and shift are functions of the sequence's text (paper, equation 1).

    y = (1 + W_scale e) * normalised(x) + W_shift e, for each token with the text e of its own scan.
    Both matrices start at zero: at first it is a LayerNorm.

    Args:
        width: of the tokens.
        text_width: of the text.
    """

    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        self.scale = nn.Linear(text_width, width, bias=False)
        self.shift = nn.Linear(text_width, width, bias=False)

    def forward(self, x: Tokens, text: Text, slots: Slots) -> Tokens:
        """Normalise tokens, each with the text of the scan that `slots` names."""
        normalised = functional.layer_norm(x, x.shape[-1:])
        scale = gather_tokens(self.scale(text), slots)
        # not 1 + scale, which bfloat16 would round to a few values
        return normalised + normalised * scale + gather_tokens(self.shift(text), slots)


class ConditionalBlock(nn.Module):
    """A pre-norm transformer block with conditional norms.

    Args:
        width: of the tokens.
        heads: of the attention.
        hidden: width of the MLP.
        text_width: of the text.
        dropout: after attention and MLP, in training.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, text_width: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = ConditionalNorm(width, text_width)
        self.attn = Attention(width, heads, qkv_bias=True, proj_drop=dropout)
        self.norm2 = ConditionalNorm(width, text_width)
        self.mlp = Mlp(width, hidden, drop=dropout)

    def forward(
        self, x: Tokens, text: Text, slots: Slots, mask: Float[Tensor, "b 1 1 l"] | None
    ) -> Tokens:
        """Return the tokens after the block; `mask` is that of `attention_mask`."""
        x = x + self.attn(self.norm1(x, text, slots), attn_mask=mask)
        out: Tokens = x + self.mlp(self.norm2(x, text, slots))
        return out


class ConditionalViT(nn.Module):
    """Patch and text embedding, blocks and a final norm.

    The reference has no final norm, so the scale of its features drifts.

    Args:
        side: patches along each axis of the grid that the learned positions are stored for.
        patch: edge of a patch in voxels.
        width, depth, heads, hidden: of the blocks.
        text_width: of the text.
        dropout: in training.
    """

    def __init__(
        self,
        side: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        text_width: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.side = side
        self.patch_embed = nn.Conv3d(1, width, patch, patch)
        self.text_embed = nn.Linear(text_width, width, bias=False)
        self.positions = nn.Parameter(torch.empty(1, side**3, width))
        self.blocks = nn.ModuleList(
            ConditionalBlock(width, heads, hidden, text_width, dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        nn.init.trunc_normal_(self.positions, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
        for module in self.modules():
            if isinstance(module, ConditionalNorm):
                nn.init.zeros_(module.scale.weight)
                nn.init.zeros_(module.shift.weight)

    def embed(
        self, volumes: Float[Tensor, "b m z y x"], text: Text
    ) -> tuple[Float[Tensor, "b m n d"], tuple[int, ...]]:
        """Return the tokens of all patches of all scans, and the grid (z, y, x)."""
        scans, count = volumes.flatten(0, 1)[:, None], volumes.shape[1]
        patches = self.patch_embed(scans)
        grid = tuple(patches.shape[2:])
        tokens = patches.flatten(2).transpose(1, 2) + self.positions_of(grid)
        return tokens.unflatten(0, (-1, count)) + self.text_embed(text)[:, :, None], grid

    def positions_of(self, grid: tuple[int, ...]) -> Float[Tensor, "1 n d"]:
        """Return the positions, resized trilinearly unless the grid is the stored one."""
        return resized_positions(self.positions, self.side, grid)


def attention_mask(attended: Bool[Tensor, "b l"], x: Tokens) -> Float[Tensor, "b 1 1 l"]:
    """Return what is added to the attention's scores: -inf for tokens that are not attended to.

    A mask of true and false would do for torch's fused attention only: timm's other one adds it.

    Args:
        attended: tokens that the others may attend to.
        x: tokens, for their type.
    """
    scores = torch.zeros_like(attended, dtype=x.dtype)
    return scores.masked_fill(~attended, -torch.inf)[:, None, None]


def gather_tokens(rows: Float[Tensor, "b m d"], numbers: Int64[Tensor, "b l"]) -> Tokens:
    """Return row `numbers[b, l]` of each sample for each token."""
    return rows.gather(1, numbers[..., None].expand(-1, -1, rows.shape[2]))
