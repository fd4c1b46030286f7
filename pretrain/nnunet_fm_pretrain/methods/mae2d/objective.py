"""The objective of the masked autoencoder: pixels of hidden patches from the visible ones."""

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Bool, Float, Int64
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle
from torch.utils.data import Dataset

from nnunet_fm.encoders import Encoder
from nnunet_fm.encoders.families.dinov3 import Dinov3
from nnunet_fm.internal.errors import InputError
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.engine.objective import Exported, Losses, Objective
from nnunet_fm_pretrain.methods.dinov3 import build_dinov3, export_dinov3, three_channels
from nnunet_fm_pretrain.methods.mae2d.batches import Mae2dBatch, Mae2dBatches
from nnunet_fm_pretrain.methods.mae2d.recipe import Mae2dObjective, Mae2dRecipe
from nnunet_fm_pretrain.methods.reconstruction import mean_over, nothing_reconstructed

SMALLEST_VARIANCE = 1e-6  # of a patch; as in the authors' code

Patches = Float[Tensor, "b n p"]


class Mae2d(Objective):
    """Encoder of visible patches and decoder of hidden ones (He et al., section 3).

    Patches of one value only (background) are not part of the loss: there is nothing to learn.

    Args:
        recipe: of the run; the networks are initialised from its seed.

    Raises:
        ValueError: the architecture is not a DINOv3 transformer, or widths that do not fit.
    """

    def __init__(self, recipe: Mae2dRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            encoder = recipe.encoder
            self.encoder = build_dinov3(
                encoder.architecture, encoder.layer_scale, encoder.drop_path
            )
            self.patch = self.encoder.input_spec.divisor
            self.decoder = Decoder(self.encoder.width, self.patch**2, recipe.objective)
        nn.init.zeros_(self.encoder.mask_token)
        self.encoder.mask_token.requires_grad_(False)  # the encoder sees no mask tokens
        self.encoder.set_gradient_checkpointing(recipe.run.checkpointing)

    def batches(self, store: SliceStore, rank: int, ranks: int) -> Dataset[Mae2dBatch]:
        """Return crops with their visible patches."""
        return Mae2dBatches(store, self.recipe, self.patch, rank, ranks)

    def trainable_modules(self, phase: str) -> Mapping[str, nn.Module]:
        """Return encoder and decoder."""
        return {"encoder": self.encoder, "decoder": self.decoder}

    def forward(self, batch: Mae2dBatch, step: int, phase: str) -> Losses:
        """Compute the reconstruction loss of a batch."""
        crops = batch.crops.to(self.encoder.mask_token.dtype)
        predicted = self.reconstruct(crops, batch.visible)
        target, counted = self.targets(crops, batch.visible)
        reconstruction = mean_over(((predicted.to(target.dtype) - target) ** 2).mean(-1), counted)
        zero = mean_over((target**2).mean(-1), counted)
        parts = {"reconstruction": reconstruction.detach()}
        return Losses(reconstruction, parts, {"predict_zero": zero.detach()})

    def reconstruct(
        self, crops: Float[Tensor, "b 1 h w"], visible: Int64[Tensor, "b k"]
    ) -> Patches:
        """Predict all patches of crops from the visible ones."""
        grid = (crops.shape[2] // self.patch, crops.shape[3] // self.patch)
        tokens = encode_visible(self.encoder, three_channels(crops), visible)
        return self.decoder(tokens, visible, grid)

    def targets(
        self, crops: Float[Tensor, "b 1 h w"], visible: Int64[Tensor, "b k"]
    ) -> tuple[Patches, Bool[Tensor, "b n"]]:
        """Return the pixels of all patches, and which patches count: hidden and not constant."""
        pixels = pixel_unshuffle(crops, self.patch).flatten(2).transpose(1, 2)
        variance = pixels.var(dim=-1, keepdim=True)
        counted = variance[..., 0] > SMALLEST_VARIANCE
        counted = counted.scatter(1, visible, False)
        if self.recipe.objective.normalise_pixels:
            pixels = pixels - pixels.mean(dim=-1, keepdim=True)
            pixels = pixels / (variance + SMALLEST_VARIANCE).sqrt()
        return pixels, counted

    def load_encoder(self, encoder: Encoder) -> None:
        """Start from `encoder`; the decoder keeps its random weights."""
        self.encoder.load_state_dict(encoder.state_dict())

    def collapse_warning(self, monitors: Mapping[str, float]) -> str | None:
        """Warn if the reconstruction is not better than zero."""
        return nothing_reconstructed(monitors)

    def blocks_to_compile(self) -> Iterable[nn.Module]:
        """Return the transformer blocks of encoder and decoder."""
        return [*self.encoder.vit.blocks, *self.decoder.blocks]

    def export_encoder(self) -> Exported:
        """Return the encoder in the names of the DINOv3 training code."""
        return export_dinov3(self.encoder, self.recipe.encoder.architecture)


class Decoder(nn.Module):
    """A light transformer on encoded and mask tokens, with fixed sine and cosine positions.

    Args:
        width: of the encoder's tokens.
        pixels: of a patch.
        recipe: sizes.

    Raises:
        ValueError: a width that the heads do not divide.
    """

    def __init__(self, width: int, pixels: int, recipe: Mae2dObjective) -> None:
        super().__init__()
        if recipe.decoder_width % recipe.decoder_heads:
            raise InputError(
                f"objective.decoder_width {recipe.decoder_width} for {recipe.decoder_heads} heads; "
                "allowed: a multiple of objective.decoder_heads"
            )
        self.embed = nn.Linear(width, recipe.decoder_width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, recipe.decoder_width))
        self.blocks = nn.ModuleList(
            Block(recipe.decoder_width, recipe.decoder_heads, qkv_bias=True)
            for _ in range(recipe.decoder_depth)
        )
        self.norm = nn.LayerNorm(recipe.decoder_width)
        self.predict = nn.Linear(recipe.decoder_width, pixels)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(
        self,
        tokens: Float[Tensor, "b m d"],
        visible: Int64[Tensor, "b k"],
        grid: tuple[int, int],
    ) -> Patches:
        """Predict the pixels of all patches.

        Args:
            tokens: of the encoder: CLS and registers, then the visible patches.
            visible: numbers of the visible patches.
            grid: rows and columns of patches.
        """
        x = self.embed(tokens)
        before = x.shape[1] - visible.shape[1]
        prefix, patches = x[:, :before], x[:, before:]
        width = patches.shape[2]
        everywhere = self.mask_token.to(x.dtype).expand(len(x), grid[0] * grid[1], width)
        index = visible[..., None].expand(-1, -1, width)
        everywhere = everywhere.scatter(1, index, patches)
        positions = build_sincos2d_pos_embed(grid, dim=width, device=x.device).to(x.dtype)
        x = torch.cat([prefix, everywhere + positions], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.predict(self.norm(x[:, before:]))


def encode_visible(
    encoder: Dinov3, x: Float[Tensor, "b c h w"], visible: Int64[Tensor, "b k"]
) -> Float[Tensor, "b m d"]:
    """Compute the tokens of the visible patches alone, each with its own rotary position.

    Args:
        encoder: the network.
        x: images; sides are multiples of the patch.
        visible: numbers of the visible patches.

    Returns:
        CLS and registers, then the visible patches, after the final norm; equal to timm's
        `forward_features` if all patches are visible.
    """
    vit = encoder.vit
    tokens, rotary = vit._pos_embed(vit.patch_embed(x))
    before = vit.num_prefix_tokens
    index = visible[..., None].expand(-1, -1, tokens.shape[2])
    tokens = torch.cat([tokens[:, :before], tokens[:, before:].gather(1, index)], dim=1)
    tokens = vit.norm_pre(tokens)
    rotary = rotary[visible][:, None]  # (b, 1, k, 2 d): the same for all heads
    for block in vit.blocks:
        tokens = encoder.run_block(block, tokens, rope=rotary)
    return vit.norm(tokens)
