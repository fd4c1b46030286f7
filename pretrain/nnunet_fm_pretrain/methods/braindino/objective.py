"""The objective of BrainDINO: DINO on CLS, iBOT on masked patches, and KoLeo.

The teacher is an exponential moving average of the student.
"""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.data import Dataset

from nnunet_fm.encoders import Encoder
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.engine.objective import Exported, Losses
from nnunet_fm_pretrain.methods.braindino.batches import (
    MultiCropBatch,
    MultiCropBatches,
    SliceSource,
)
from nnunet_fm_pretrain.methods.braindino.masked_forward import (
    Tokens,
    forward_tokens,
    rescale_positions,
)
from nnunet_fm_pretrain.methods.braindino.recipe import BrainDinoObjective, BrainDinoRecipe
from nnunet_fm_pretrain.methods.braindino.sample_subset import set_constant_drop_path
from nnunet_fm_pretrain.methods.dinov3 import (
    build_dinov3,
    export_dinov3,
    initialise_as_dinov3,
    three_channels,
)
from nnunet_fm_pretrain.methods.projection_head import PrototypeHead
from nnunet_fm_pretrain.methods.self_distillation import (
    Projected,
    SelfDistillation,
    all_other_views,
    exact_dtype,
    spread,
)


class BrainDino(SelfDistillation):
    """Student and teacher of BrainDINO (paper section 4.2.1).

    Args:
        recipe: of the run; the networks are initialised from its seed.

    Raises:
        ValueError: the architecture is not a DINOv3 transformer.
    """

    recipe: BrainDinoRecipe
    settings: BrainDinoObjective

    def __init__(self, recipe: BrainDinoRecipe) -> None:
        settings = recipe.objective
        prototypes = {"dino": settings.dino_head.prototypes, "ibot": settings.ibot_head.prototypes}
        super().__init__(recipe, prototypes, settings.centring)
        self.koleo_over_ranks = settings.koleo_neighbours == "all"

    def _build_networks(self) -> tuple[Any, Any]:
        """Build student and teacher: an `encoder`, a `dino_head` and an `ibot_head` each."""
        recipe = self.recipe.encoder
        student, teacher = _Networks(self.recipe, recipe.drop_path), _Networks(self.recipe, 0.0)
        if recipe.rope_rescale and recipe.rope_rescale_draw == "pass":
            rescale_positions(student.encoder, recipe.rope_rescale)
        return student, teacher

    def batches(self, store: SliceStore, rank: int, ranks: int) -> Dataset[MultiCropBatch]:
        """Return multi-crop views with block masks."""
        patch = self.student.encoder.input_spec.divisor
        source = SliceSource(store, self.recipe.views.fusion)
        return MultiCropBatches(source, self.recipe, patch, rank, ranks)

    def forward(self, batch: MultiCropBatch, step: int, phase: str) -> Losses:
        """Compute the DINO, iBOT and KoLeo losses of a batch."""
        exact = exact_dtype(self.student.dino_head.last_layer)
        global_crops = batch.global_crops.to(exact).flatten(0, 1)
        local_crops = batch.local_crops.to(exact).flatten(0, 1)
        masks = batch.masks.flatten(0, 1)
        with torch.no_grad():
            taught = self._teacher_tokens(global_crops)
        seen = self._student_tokens(global_crops, masks)
        views = [seen.cls.unflatten(0, (2, -1))]
        if len(batch.local_crops):
            local_cls = self._student_tokens(local_crops).cls
            views.append(local_cls.unflatten(0, (len(batch.local_crops), -1)))
        teacher_cls = taught.cls.unflatten(0, (2, -1))
        dino, dino_monitors = self._dino(torch.cat(views), teacher_cls, step)
        ibot, ibot_monitors = self._ibot(seen, taught, masks, step)
        koleo = self._koleo(views[0])
        s = self.settings
        with torch.no_grad():
            monitors = {
                **dino_monitors,
                **ibot_monitors,
                **spread(teacher_cls[0].to(exact)),
            }
        return Losses(
            s.dino_weight * dino + s.ibot_weight * ibot + s.koleo_weight * koleo,
            {"dino": dino.detach(), "ibot": ibot.detach(), "koleo": koleo.detach()},
            monitors,
        )

    def _student_tokens(
        self, crops: Float[Tensor, "n c h w"], masks: Bool[Tensor, "n th tw"] | None = None
    ) -> Tokens:
        """Compute the student's tokens, with the rotary coordinates that the recipe asks for."""
        encoder = self.recipe.encoder
        stretch = None
        if self.training and encoder.rope_rescale_draw == "block":
            stretch = encoder.rope_rescale
        return forward_tokens(self.student.encoder, three_channels(crops), masks, stretch)

    def _teacher_tokens(self, crops: Float[Tensor, "n c h w"]) -> Tokens:
        """Compute the teacher's tokens; nothing is masked."""
        return forward_tokens(self.teacher.encoder, three_channels(crops))

    def _dino(
        self, student_cls: Float[Tensor, "v b d"], teacher_cls: Float[Tensor, "2 b d"], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Average over all pairs of a student's view and another view of the teacher's."""
        return self._project_and_distil(
            "dino", student_cls, teacher_cls, *all_other_views(student_cls), step
        )

    def _ibot(
        self, seen: Tokens, taught: Tokens, masks: Tensor, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Average over crops of the average over their masked patches.

        Crops without a mask count as 0, as in DINOv2.
        """
        hidden = masks.flatten(1)
        per_crop = hidden.sum(1, keepdim=True).clamp(min=1)
        per_patch = 1 / (per_crop * len(hidden)).to(exact_dtype(seen.patches))
        weights = per_patch.expand_as(hidden)[hidden]
        pairs = weights.new_ones(1, 1)
        return self._project_and_distil(
            "ibot", seen.patches[hidden][None], taught.patches[hidden][None], pairs, weights, step
        )

    def _project_and_distil(
        self, name: str, student: Tensor, teacher: Tensor, pairs: Tensor, weights: Tensor, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        own: PrototypeHead = getattr(self.student, f"{name}_head")
        other: PrototypeHead = getattr(self.teacher, f"{name}_head")
        with torch.no_grad():
            targets = Projected(other(teacher), other.prototypes)
        learner = Projected(own(student), own.prototypes)
        return self._distil(name, learner, targets, pairs, weights, step)

    def _last_layers(self) -> Iterable[nn.Parameter]:
        return self.student.dino_head.last_layer, self.student.ibot_head.last_layer

    def _watched(self) -> Iterable[str]:
        return self.prototypes if self.settings.masks.probability else ("dino",)

    def blocks_to_compile(self) -> Iterable[nn.Module]:
        """Return the transformer blocks of student and teacher."""
        return [*self.student.encoder.vit.blocks, *self.teacher.encoder.vit.blocks]

    def load_encoder(self, encoder: Encoder) -> None:
        """Start student and teacher from `encoder`; the heads keep their random weights."""
        for networks in (self.student, self.teacher):
            networks.encoder.load_state_dict(encoder.state_dict())  # type: ignore[attr-defined]

    def export_encoder(self) -> Exported:
        """Return the teacher's encoder in the names of the DINOv3 training code."""
        return export_dinov3(self.teacher.encoder, self.recipe.encoder.architecture)


class _Networks(nn.Module):
    """Encoder and heads."""

    def __init__(self, recipe: BrainDinoRecipe, drop_path: float) -> None:
        super().__init__()
        encoder = recipe.encoder
        self.encoder = build_dinov3(encoder.architecture, encoder.layer_scale, drop_path)
        if encoder.initialisation == "dinov3":
            initialise_as_dinov3(self.encoder)
        if drop_path and encoder.drop_path_blocks == "constant":
            set_constant_drop_path(self.encoder, drop_path)
        self.dino_head = PrototypeHead(self.encoder.width, recipe.objective.dino_head)
        self.ibot_head = PrototypeHead(self.encoder.width, recipe.objective.ibot_head)
