"""The objective of BrainFound: BrainDINO's losses on slabs, and an optional contrast."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import Dataset

from nnunet_fm.encoders import Encoder
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.engine.objective import Exported, Losses
from nnunet_fm_pretrain.methods.braindino.masked_forward import Tokens
from nnunet_fm_pretrain.methods.braindino.objective import BrainDino
from nnunet_fm_pretrain.methods.brainfound.batches import SlabBatch, SlabBatches
from nnunet_fm_pretrain.methods.brainfound.network import SlabNetworks, start_weights
from nnunet_fm_pretrain.methods.brainfound.recipe import BrainFoundRecipe
from nnunet_fm_pretrain.methods.brainfound.slabs import SlabSource
from nnunet_fm_pretrain.methods.contrast import infonce
from nnunet_fm_pretrain.methods.self_distillation import exact_dtype


class BrainFound(BrainDino):
    """Student and teacher of BrainFound (arXiv:2510.23415).

    Args:
        recipe: of the run; the networks are initialised from its seed.
    """

    recipe: BrainFoundRecipe

    def _build_networks(self) -> tuple[Any, Any]:
        student = SlabNetworks(self.recipe, self.recipe.encoder.drop_path)
        return student, SlabNetworks(self.recipe, drop_path=0.0)

    def batches(self, store: SliceStore, rank: int, ranks: int) -> Dataset[Any]:
        """Return multi-crop views of slabs with block masks."""
        patch = self.student.encoder.input_spec.divisor
        source = SlabSource(store, self.recipe.slabs)
        return SlabBatches(source, self.recipe, patch, rank, ranks)

    def forward(self, batch: SlabBatch, step: int, phase: str) -> Losses:  # type: ignore[override]
        """Compute the losses of BrainDINO, and the contrast if it has a weight."""
        losses = super().forward(batch.views, step, phase)
        settings = self.recipe.objective
        if not settings.infonce_weight:
            return losses
        exact = exact_dtype(self.student.dino_head.last_layer)
        seen = torch.cat([batch.views.global_crops[0], batch.positives[0]]).to(exact)
        anchors, positives = self._student_tokens(seen).cls.chunk(2)
        contrast = infonce(anchors, positives, batch.subjects, settings.infonce_temperature)
        parts = {**losses.parts, "infonce": contrast.detach()}
        return Losses(losses.total + settings.infonce_weight * contrast, parts, losses.monitors)

    def _student_tokens(
        self, crops: Float[Tensor, "n c h w"], masks: Bool[Tensor, "n th tw"] | None = None
    ) -> Tokens:
        tokens: Tokens = self.student.tokens(crops, masks)
        return tokens

    def _teacher_tokens(self, crops: Float[Tensor, "n c h w"]) -> Tokens:
        tokens: Tokens = self.teacher.tokens(crops)
        return tokens

    def load_encoder(self, encoder: Encoder) -> None:
        """Start student and teacher from DINOv2 of images, or from BrainFound of the same slabs."""
        for networks in (self.student, self.teacher):
            own = networks.encoder
            own.load_state_dict(start_weights(encoder, own, self.recipe.slabs))

    def export_encoder(self) -> Exported:
        """Return the teacher's encoder."""
        exported: Exported = self.teacher.export(self.recipe)
        return exported
