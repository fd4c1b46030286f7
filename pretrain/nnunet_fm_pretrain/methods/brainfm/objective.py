"""The objective of BrainFM-MRI: hidden patches of a session from the visible ones."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int64
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import Dataset

from nnunet_fm.encoders import Encoder, build_encoder
from nnunet_fm.encoders.families.brainfm import BrainFM as BrainFMEncoder
from nnunet_fm.encoders.families.brainfm_network import attention_mask, gather_tokens
from nnunet_fm.encoders.modality_text import LEARNED
from nnunet_fm.internal.errors import InputError
from nnunet_fm_pretrain.data.volume_store import VolumeStore
from nnunet_fm_pretrain.engine.objective import Exported, Losses, Objective
from nnunet_fm_pretrain.methods.brainfm.batches import (
    SessionBatch,
    SessionBatches,
    inside_voxels,
    valid_patches,
)
from nnunet_fm_pretrain.methods.brainfm.recipe import BrainFMObjective, BrainFMRecipe
from nnunet_fm_pretrain.methods.brainfm.regularisers import variance_and_covariance
from nnunet_fm_pretrain.methods.brainfm.text_tables import read_text_table
from nnunet_fm_pretrain.methods.reconstruction import mean_over, nothing_reconstructed
from nnunet_fm_pretrain.methods.voxel_size import common_voxel, exported_spacing


class Visible(NamedTuple):
    """The encoded tokens of the visible patches, padded to the longest session.

    Attributes:
        tokens: after the final norm.
        places: number of each among the patches of its session; behind the last for padding.
        attended: which of them are no padding.
    """

    tokens: Float[Tensor, "b k d"]
    places: Int64[Tensor, "b k"]
    attended: Bool[Tensor, "b k"]


class BrainFM(Objective):
    """Encoder of the visible patches of a session and decoder of the hidden ones.

    Patches outside a scan, and those of places without one, are seen by nothing: neither encoder
    nor decoder attends to them, and no loss counts them.

    Args:
        recipe: of the run; the networks are initialised from its seed.

    Raises:
        ValueError: a text table that lacks a name, or heads that do not divide the width.
    """

    voxel_mm: Tensor

    def __init__(self, recipe: BrainFMRecipe) -> None:
        super().__init__()
        self.recipe, self.settings = recipe, recipe.objective
        options: dict[str, Any] = {"names": recipe.sessions.names, "text": recipe.text.source}
        if recipe.text.width is not None:
            options["text_width"] = recipe.text.width
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            built = build_encoder(
                recipe.encoder.architecture,
                image_size=recipe.sessions.size,
                dropout=recipe.encoder.dropout,
                **options,
            )
            self.encoder = cast(BrainFMEncoder, built)
            self.patch = self.encoder.input_spec.divisor
            self.decoder = Decoder(self.encoder, self.patch**3, recipe.objective)
        self.encoder.set_gradient_checkpointing(recipe.run.checkpointing)
        self.decoder.checkpointing = recipe.run.checkpointing
        self.register_buffer("voxel_mm", torch.zeros(3))  # for the export; 0 if the scans differ

    def batches(self, store: VolumeStore, rank: int, ranks: int) -> Dataset[SessionBatch]:
        """Return the scans of sessions, and note the size of their voxels."""
        self._read_text()
        made = SessionBatches(store, self.recipe, self.patch, rank, ranks)
        scans = (record for session in made.source.sessions for record in session)
        self.voxel_mm.copy_(common_voxel(scans))
        return made

    def _read_text(self) -> None:
        """Read the table of the text; a checkpoint has it already."""
        text = self.encoder.text
        if self.recipe.text.file is None or text.known:
            return
        table = read_text_table(Path(self.recipe.text.file), self.recipe.sessions.names, text.width)
        text.fill(torch.as_tensor(table))

    def trainable_modules(self, phase: str) -> Mapping[str, nn.Module]:
        """Return encoder and decoder."""
        return {"encoder": self.encoder, "decoder": self.decoder}

    def forward(self, batch: SessionBatch, step: int, phase: str) -> Losses:
        """Compute the losses of a batch."""
        exact = self.encoder.vit.norm.weight.dtype
        volumes = batch.volumes.to(exact)
        text = self.encoder.text.table[batch.names]
        valid = valid_patches(batch.inside, volumes.shape[-1], self.patch).flatten(1)
        seen = self.encode(volumes, text, batch.visible)
        predicted = self.decoder(seen, text, valid).to(exact)
        target = in_patches(volumes, self.patch)
        hidden = ~batch.visible[..., None]
        counted = hidden & in_patches(inside_voxels(batch.inside, volumes.shape[-1]), self.patch)
        reconstruction = mean_over((predicted - target) ** 2, counted)
        zero = mean_over(target**2, counted)
        variance, covariance = variance_and_covariance(seen.tokens[seen.attended].to(exact))
        s = self.settings
        grown = min(1.0, (step + 1) / max(1, s.regulariser_warmup_steps))
        regularisers = s.variance_weight * variance + s.covariance_weight * covariance
        parts = {
            "reconstruction": reconstruction.detach(),
            "variance": variance.detach(),
            "covariance": covariance.detach(),
        }
        total = reconstruction + grown * regularisers
        return Losses(total, parts, {"predict_zero": zero.detach()})

    def encode(
        self,
        volumes: Float[Tensor, "b m s s s"],
        text: Float[Tensor, "b m w"],
        visible: Bool[Tensor, "b l"],
    ) -> Visible:
        """Encode the visible patches, padded to the longest session."""
        by_scan, _ = self.encoder.vit.embed(volumes, text)
        patches = by_scan.shape[2]
        counts = visible.sum(1)
        places = visible.logical_not().to(torch.uint8).argsort(dim=1, stable=True)
        places = places[:, : int(counts.max())]
        attended = torch.arange(places.shape[1], device=places.device) < counts[:, None]
        tokens = gather_tokens(by_scan.flatten(1, 2), places)
        (encoded,) = self.encoder.run_blocks(tokens, text, places // patches, attended)
        return Visible(encoded, places.masked_fill(~attended, visible.shape[1]), attended)

    def load_encoder(self, encoder: Encoder) -> None:
        """Start from `encoder`, at other positions and names too, if the text allows it.

        The decoder keeps its random weights.

        Raises:
            InputError: text of another kind, or of a table that lacks a name.
        """
        given, own = cast(BrainFMEncoder, encoder), self.encoder
        if (given.text.source, given.text.width) != (own.text.source, own.text.width):
            raise InputError(
                f"encoder.init was trained with text.source={given.text.source} of "
                f"{given.text.width} numbers, this recipe has {own.text.source} of "
                f"{own.text.width}; allowed: the same (text.source, text.width)"
            )
        weights = given.state_dict()
        weights["vit.positions"] = given.vit.positions_of((own.vit.side,) * 3)
        rows = given.text.of(own.text.names)
        if own.text.source == LEARNED:
            rows = torch.cat([rows, given.text.table[-1:]])
        weights["text.table"] = rows
        own.load_state_dict(weights)

    def collapse_warning(self, monitors: Mapping[str, float]) -> str | None:
        """Warn if the reconstruction is no better than zero."""
        return nothing_reconstructed(monitors)

    def blocks_to_compile(self) -> Iterable[nn.Module]:
        """Return the transformer blocks of encoder and decoder."""
        return [*self.encoder.vit.blocks, *self.decoder.blocks]

    def export_encoder(self) -> Exported:
        """Return the encoder with the table of its text."""
        architecture = self.recipe.encoder.architecture
        options = {
            "names": list(self.encoder.text.names),
            "text": self.encoder.text.source,
            "text_width": self.encoder.text.width,
            "image_size": self.recipe.sessions.size,
            "spacing": exported_spacing(self.voxel_mm),
        }
        tensors = self.encoder.state_dict()
        return Exported(tensors, architecture, f"{architecture}.trained", options)


class Decoder(nn.Module):
    """A transformer on visible and mask tokens, each with its position and its sequence's text.

    Args:
        encoder: whose tokens it reads.
        voxels: of a patch.
        recipe: sizes.

    Attributes:
        checkpointing: whether the blocks are recomputed in the backward pass.

    Raises:
        ValueError: heads that do not divide the width.
    """

    def __init__(self, encoder: BrainFMEncoder, voxels: int, recipe: BrainFMObjective) -> None:
        super().__init__()
        width = encoder.width
        if width % recipe.decoder_heads:
            raise InputError(
                f"objective.decoder_heads {recipe.decoder_heads} for tokens of {width} numbers; "
                "allowed: a divisor"
            )
        self.checkpointing = False
        self.mask_token = nn.Parameter(torch.empty(width))
        self.positions = nn.Parameter(torch.empty_like(encoder.vit.positions))
        self.text_embed = nn.Linear(encoder.text.width, width, bias=False)
        ratio = recipe.decoder_hidden / width
        self.blocks = nn.ModuleList(
            Block(width, recipe.decoder_heads, mlp_ratio=ratio, qkv_bias=True)
            for _ in range(recipe.decoder_depth)
        )
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, voxels)
        for parameter in (self.mask_token, self.positions, self.text_embed.weight):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(
        self, seen: Visible, text: Float[Tensor, "b m w"], valid: Bool[Tensor, "b l"]
    ) -> Float[Tensor, "b l p"]:
        """Predict the voxels of all patches, in the order of the scans and of their patches."""
        sessions, length = valid.shape
        width = seen.tokens.shape[2]
        # one place more, where padding goes
        everywhere = self.mask_token.to(seen.tokens.dtype).expand(sessions, length + 1, -1)
        index = seen.places[..., None].expand(-1, -1, width)
        tokens = everywhere.scatter(1, index, seen.tokens)[:, :-1]
        known = self.text_embed(text)[:, :, None] + self.positions[:, None]
        tokens = tokens + known.flatten(1, 2).to(tokens.dtype)
        mask = attention_mask(valid, tokens)
        for block in self.blocks:
            if self.checkpointing:
                tokens = checkpoint(block, tokens, attn_mask=mask, use_reentrant=False)
            else:
                tokens = block(tokens, attn_mask=mask)
        predicted: Tensor = self.predict(self.norm(tokens))
        return predicted


def in_patches(volumes: Tensor, patch: int) -> Tensor:
    """Return the voxels of each patch: (b, m, s, s, s) to (b, m n^3, patch^3), both z, y, x."""
    b, m, side = volumes.shape[:3]
    n = side // patch
    divided = volumes.reshape(b, m, n, patch, n, patch, n, patch)
    return divided.permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(b, m * n**3, patch**3)
