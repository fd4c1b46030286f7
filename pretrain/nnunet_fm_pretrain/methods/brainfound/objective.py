"""The objective of BrainFound: BrainDINO's losses on slabs, and an optional contrast."""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int64
from lightly.utils.dist import gather, world_size
from torch import Tensor, nn
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


def infonce(
    anchors: Float[Tensor, "b d"],
    positives: Float[Tensor, "b d"],
    subjects: Int64[Tensor, " b"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Contrast each anchor with its positive and with the positives of other people.

    L = -log exp(a p / t) / (exp(a p / t) + sum over other subjects of exp(a p' / t)), cosines, mean
    over anchors of all ranks. Slices of the same person are never negatives.

    Args:
        anchors: vectors of slabs.
        positives: vectors of what each slab is contrasted with.
        subjects: number of the person of each slab.
        temperature: of the cosines.
    """
    exact = exact_dtype(anchors)
    with torch.autocast(anchors.device.type, enabled=False):
        a = nn.functional.normalize(anchors.to(exact), dim=-1)
        p = nn.functional.normalize(positives.to(exact), dim=-1)
        others, people = p, subjects
        first = 0
        if world_size() > 1:
            others = torch.cat(gather(p.contiguous()))
            people = torch.cat(gather(subjects))
            first = dist.get_rank() * len(a)
        cosines = a @ others.T / temperature
        own = torch.arange(len(a), device=a.device) + first
        same = subjects[:, None] == people[None]
        same[torch.arange(len(a), device=a.device), own] = False
        return nn.functional.cross_entropy(cosines.masked_fill(same, -torch.inf), own)
