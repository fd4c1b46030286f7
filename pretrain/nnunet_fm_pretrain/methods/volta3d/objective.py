"""The objective of VolTA-3D: alignment of summaries and of patches, and reconstruction."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.data import Dataset

from nnunet_fm.encoders import Encoder
from nnunet_fm.encoders.families.volta3d import Volta3d as Volta3dEncoder
from nnunet_fm_pretrain.data.volume_store import VolumeStore
from nnunet_fm_pretrain.engine.objective import Exported, Losses
from nnunet_fm_pretrain.methods.reconstruction import nothing_reconstructed
from nnunet_fm_pretrain.methods.self_distillation import (
    SelfDistillation,
    all_other_views,
    exact_dtype,
    spread,
)
from nnunet_fm_pretrain.methods.volta3d.batches import Volta3dBatch, Volta3dBatches
from nnunet_fm_pretrain.methods.volta3d.network import Reconstruction, VolumeNetworks
from nnunet_fm_pretrain.methods.volta3d.recipe import Volta3dObjective, Volta3dRecipe
from nnunet_fm_pretrain.methods.volta3d.views import median_voxel


class Volta3d(SelfDistillation):
    """Student and teacher of VolTA-3D (Makawana et al., section II.B).

    Args:
        recipe: of the run; the networks are initialised from its seed.
    """

    recipe: Volta3dRecipe
    voxel_mm: Tensor
    settings: Volta3dObjective

    def __init__(self, recipe: Volta3dRecipe) -> None:
        count = recipe.objective.head.prototypes
        super().__init__(recipe, {"global": count, "patch": count})
        self.register_buffer("voxel_mm", torch.zeros(()))  # of the global crops, for the export

    def _build_networks(self) -> tuple[Any, Any]:
        student, teacher = VolumeNetworks(self.recipe), VolumeNetworks(self.recipe)
        self.patch = student.encoder.input_spec.divisor
        self.decoder = Reconstruction(student.encoder.width, self.patch)
        return student, teacher

    def batches(self, store: VolumeStore, rank: int, ranks: int) -> Dataset[Volta3dBatch]:
        """Return global and local crops of volumes, and note the size of their voxels."""
        shapes = [record.shape for record in store.records]
        spacings = [record.spacing for record in store.records]
        self.voxel_mm.fill_(median_voxel(shapes, spacings, self.recipe.views))
        return Volta3dBatches(store, self.recipe, self.patch, rank, ranks)

    def micro_batches(self, batch: Volta3dBatch) -> Sequence[Volta3dBatch]:
        """Divide a batch into parts of `run.micro_batch` volumes."""
        size = self.recipe.run.micro_batch or batch.hidden.shape[1]
        parts = zip(*(tensor.split(size, dim=1) for tensor in batch), strict=True)
        return [Volta3dBatch(*part) for part in parts]

    def trainable_modules(self, phase: str) -> Mapping[str, nn.Module]:
        """Return the student's encoder, summariser and head, and the decoder."""
        return {**super().trainable_modules(phase), "decoder": self.decoder}

    def forward(self, batch: Volta3dBatch, step: int, phase: str) -> Losses:
        """Compute the losses of a batch or of a micro-batch."""
        exact = exact_dtype(self.student.head.last_layer)
        with torch.no_grad():
            taught = self.teacher.tokens(batch.teacher.to(exact).flatten(0, 1))
            taught_summaries = self.teacher.summaries(taught, 2)
        seen = self.student.tokens(batch.corrupted.to(exact).flatten(0, 1))
        summaries = [self.student.summaries(seen, 2)]
        if len(batch.local):
            local = self.student.tokens(batch.local.to(exact).flatten(0, 1))
            summaries.append(self.student.summaries(local, len(batch.local)))
        alignment, summary_monitors = self._global(torch.cat(summaries), taught_summaries, step)
        patches, patch_monitors = self._patches(seen.patches, taught.patches, step)
        target = batch.student.to(exact).flatten(0, 1)
        predicted = self.decoder(self.student.encoder.as_map(*seen)).to(exact)
        hidden = batch.hidden.flatten(0, 1)
        reconstruction = self._over_hidden((predicted - target) ** 2, hidden)
        parts = {
            "global": alignment,
            "patch": patches,
            "reconstruction": reconstruction,
            "predict_zero": self._over_hidden(target**2, hidden),
        }
        s = self.settings
        on = float(step >= s.distillation_warmup_steps)
        total = on * (s.global_weight * alignment + s.patch_weight * patches)
        total = total + s.reconstruction_weight * reconstruction
        if s.koleo_weight:
            parts["koleo"] = self._koleo(summaries[0])
            total = total + s.koleo_weight * parts["koleo"]
        monitors = {
            **summary_monitors,
            **patch_monitors,
            **self._spread(taught_summaries[0].to(exact)),
        }
        return Losses(total, {name: part.detach() for name, part in parts.items()}, monitors)

    def _global(
        self, student: Float[Tensor, "v b d"], teacher: Float[Tensor, "2 b d"], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Align each of the student's summaries with those of the teacher's other crops."""
        learner = self.student.head.project(student, "global")
        with torch.no_grad():
            targets = self.teacher.head.project(teacher, "global")
        return self._distil("global", learner, targets, *all_other_views(student), step)

    def _patches(
        self, student: Float[Tensor, "c n d"], teacher: Float[Tensor, "c n d"], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Align every patch, corrupted or not, with the teacher's of the same place."""
        learner = self.student.head.project(student.flatten(0, 1)[None], "patch")
        with torch.no_grad():
            targets = self.teacher.head.project(teacher.flatten(0, 1)[None], "patch")
        rows = learner.rows.shape[1]
        one_pair = learner.rows.new_ones(1, 1)
        weights = one_pair.new_full((rows,), 1 / rows)
        return self._distil("patch", learner, targets, one_pair, weights, step)

    def _over_hidden(
        self, values: Float[Tensor, "c 1 z y x"], hidden: Bool[Tensor, "c t t t"]
    ) -> Float[Tensor, ""]:
        """Average over the voxels of the patches that are hidden; each crop has as many."""
        return nn.functional.avg_pool3d(values, self.patch)[:, 0][hidden].mean()

    @torch.no_grad()
    def _spread(self, summaries: Float[Tensor, "b d"]) -> dict[str, Tensor]:
        """Measure the spread over all volumes of a step so far."""
        earlier = self._seen.get("summaries", summaries[:0])
        self._seen["summaries"] = torch.cat([earlier, summaries])
        return spread(self._seen["summaries"])

    def momentum(self, step: int) -> float:
        """Return the teacher's momentum; 0, a copy, while distillation is not on yet."""
        warmup = self.settings.distillation_warmup_steps
        return super().momentum(step) if step >= warmup else 0.0

    def _last_layers(self) -> Iterable[nn.Parameter]:
        return self.student.head.last_layer, self.student.head.patch_last_layer

    def _watched(self) -> Iterable[str]:
        weights = {"global": self.settings.global_weight, "patch": self.settings.patch_weight}
        return [name for name, weight in weights.items() if weight]

    def collapse_warning(self, monitors: Mapping[str, float]) -> str | None:
        """Warn as the base class, or if the reconstruction is no better than zero."""
        return nothing_reconstructed(monitors) or super().collapse_warning(monitors)

    def blocks_to_compile(self) -> Iterable[nn.Module]:
        """Return the transformer blocks of student and teacher."""
        return [*self.student.encoder.vit.blocks, *self.teacher.encoder.vit.blocks]

    def load_encoder(self, encoder: Encoder) -> None:
        """Start student and teacher from `encoder`; head and decoder keep their random weights."""
        for networks in (self.student, self.teacher):
            networks.start_from(cast(Volta3dEncoder, encoder))

    def export_encoder(self) -> Exported:
        """Return the teacher's encoder with its summariser."""
        known = not self.voxel_mm.is_meta
        exported: Exported = self.teacher.export(self.recipe, float(self.voxel_mm) if known else 0)
        return exported
