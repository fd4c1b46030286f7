"""The objective of BrainDINO: DINO on CLS, iBOT on masked patches, and KoLeo.

The teacher is an exponential moving average of the student.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from lightly.loss import KoLeoLoss
from lightly.models.utils import update_momentum
from lightly.utils.dist import gather, world_size
from lightly.utils.scheduler import cosine_schedule
from torch import Tensor, nn
from torch.utils.data import Dataset

from nnunet_fm.encoders import Encoder
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.engine.objective import Exported, Losses, Objective
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
from nnunet_fm_pretrain.methods.braindino.projection_head import PrototypeHead
from nnunet_fm_pretrain.methods.braindino.prototype_loss import cross_entropy, logits, sinkhorn_bias
from nnunet_fm_pretrain.methods.braindino.recipe import BrainDinoRecipe
from nnunet_fm_pretrain.methods.braindino.sample_subset import set_constant_drop_path
from nnunet_fm_pretrain.methods.dinov3 import (
    build_dinov3,
    export_dinov3,
    initialise_as_dinov3,
    three_channels,
)

CERTAIN, UNIFORM = 0.02, 0.98  # of ln K: a teacher entropy beyond means collapse
SAME_DIRECTION = 0.995  # mean cosine of CLS tokens


class BrainDino(Objective):
    """Student and teacher of BrainDINO (paper section 4.2.1).

    Args:
        recipe: of the run; the networks are initialised from its seed.

    Raises:
        ValueError: the architecture is not a DINOv3 transformer.
    """

    def __init__(self, recipe: BrainDinoRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.settings = recipe.objective
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            self.student, self.teacher = self._build_networks()
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        if recipe.run.checkpointing:
            self.student.encoder.set_gradient_checkpointing(True)
        self.koleo = KoLeoLoss()
        for name, head in (("dino", self.settings.dino_head), ("ibot", self.settings.ibot_head)):
            self.register_buffer(f"{name}_centre", torch.zeros(head.prototypes))
            self.register_buffer(
                f"{name}_next_centre", torch.zeros(head.prototypes), persistent=False
            )

    def _build_networks(self) -> tuple[Any, Any]:
        """Build student and teacher: an `encoder`, a `dino_head` and an `ibot_head` each."""
        recipe = self.recipe.encoder
        student, teacher = _Networks(self.recipe, recipe.drop_path), _Networks(self.recipe, 0.0)
        if recipe.rope_rescale and recipe.rope_rescale_draw == "pass":
            rescale_positions(student.encoder, recipe.rope_rescale)
        return student, teacher

    def train(self, mode: bool = True) -> "BrainDino":
        """Switch to training mode; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def batches(self, store: SliceStore, rank: int, ranks: int) -> Dataset[MultiCropBatch]:
        """Return multi-crop views with block masks."""
        patch = self.student.encoder.input_spec.divisor
        source = SliceSource(store, self.recipe.views.fusion)
        return MultiCropBatches(source, self.recipe, patch, rank, ranks)

    def trainable_modules(self, phase: str) -> Mapping[str, nn.Module]:
        """Return the encoder and the two heads of the student."""
        return dict(self.student.named_children())

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
        dino, dino_entropy = self._dino(torch.cat(views), teacher_cls, step)
        ibot, ibot_entropy = self._ibot(seen, taught, masks, step)
        koleo = self._koleo(views[0])
        s = self.settings
        with torch.no_grad():
            monitors = {
                "dino_entropy": dino_entropy,
                "ibot_entropy": ibot_entropy,
                **_spread(teacher_cls[0].to(exact)),
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
    ) -> tuple[Tensor, Tensor]:
        """Average over all pairs of a student's view and another view of the teacher's."""
        views, slices = student_cls.shape[:2]
        pairs = 1 - torch.eye(views, 2, device=student_cls.device, dtype=exact_dtype(student_cls))
        weights = pairs.new_full((slices,), 1 / slices)
        return self._distil("dino", student_cls, teacher_cls, pairs / pairs.sum(), weights, step)

    def _ibot(
        self, seen: Tokens, taught: Tokens, masks: Tensor, step: int
    ) -> tuple[Tensor, Tensor]:
        """Average over crops of the average over their masked patches.

        Crops without a mask count as 0, as in DINOv2.
        """
        hidden = masks.flatten(1)
        per_crop = hidden.sum(1, keepdim=True).clamp(min=1)
        weights = (1 / (per_crop * len(hidden)).to(exact_dtype(seen.patches))).expand_as(hidden)[
            hidden
        ]
        pairs = weights.new_ones(1, 1)
        return self._distil(
            "ibot", seen.patches[hidden][None], taught.patches[hidden][None], pairs, weights, step
        )

    def _distil(
        self, name: str, student: Tensor, teacher: Tensor, pairs: Tensor, weights: Tensor, step: int
    ) -> tuple[Tensor, Tensor]:
        own: PrototypeHead = getattr(self.student, f"{name}_head")
        other: PrototypeHead = getattr(self.teacher, f"{name}_head")
        cold = self.teacher_temperature(step)
        with torch.no_grad():
            targets, prototypes = other(teacher), other.prototypes
            bias = self._bias(name, targets.flatten(0, 1), prototypes, cold)
        temperatures = (self.settings.student_temperature, cold)
        return cross_entropy(
            own(student), own.prototypes, targets, prototypes, bias, pairs, weights, temperatures
        )

    def _bias(self, name: str, rows: Tensor, prototypes: Tensor, temperature: float) -> Tensor:
        if self.settings.centring == "sinkhorn":
            return sinkhorn_bias(rows, prototypes, temperature)
        centre = getattr(self, f"{name}_centre")
        # the mean of the logits is the logit of the mean
        both = torch.cat([rows.sum(0), rows.new_tensor([len(rows)])])
        if world_size() > 1:
            dist.all_reduce(both)
        mean = logits(both[None, :-1] / both[-1].clamp(min=1), prototypes)[0]
        m = self.settings.centre_momentum
        setattr(self, f"{name}_next_centre", m * centre + (1 - m) * mean)
        return -centre / temperature

    def _koleo(self, cls: Float[Tensor, "2 b d"]) -> Tensor:
        """Sum KoLeo over the two crops, in float32.

        Without the other ranks' slices, DistributedDataParallel averages the ranks' losses.
        """
        with torch.autocast(cls.device.type, enabled=False):
            crops = list(cls.to(exact_dtype(cls)))
            if world_size() > 1 and self.settings.koleo_neighbours == "all":
                crops = [torch.cat(gather(c.contiguous())) for c in crops]
            return torch.stack([self.koleo(c) for c in crops]).sum()

    def teacher_temperature(self, step: int) -> float:
        """Return the teacher's temperature: linear from the first to the second value."""
        first, last = self.settings.teacher_temperature
        steps = self.settings.teacher_temperature_steps
        return first + (last - first) * (min(1.0, step / steps) if steps else 1.0)

    def momentum(self, step: int) -> float:
        """Return the teacher's momentum: half a cosine between the two values."""
        return cosine_schedule(step, self.recipe.optimiser.steps, *self.settings.momentum)

    def before_step(self, step: int, phase: str) -> None:
        """Keep the prototypes as they are in the first steps."""
        if step < self.settings.freeze_last_layer_steps:
            self.student.dino_head.last_layer.grad = self.student.ibot_head.last_layer.grad = None

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the teacher and the centre."""
        update_momentum(self.student, self.teacher, self.momentum(step))
        if self.settings.centring == "mean":
            for name in ("dino", "ibot"):
                getattr(self, f"{name}_centre").copy_(getattr(self, f"{name}_next_centre"))

    def collapse_warning(self, monitors: Mapping[str, float]) -> str | None:
        """Warn of uniform targets, one target for all, or one direction of all CLS tokens."""
        for name, head in (("dino", self.settings.dino_head), ("ibot", self.settings.ibot_head)):
            if name == "ibot" and not self.settings.masks.probability:
                continue
            share = monitors[f"{name}_entropy"] / math.log(head.prototypes)
            if share > UNIFORM:
                return (
                    f"the teacher's {name} targets are uniform "
                    f"(entropy {share:.1%} of ln K): nothing is taught"
                )
            if share < CERTAIN:
                return (
                    f"the teacher's {name} targets are single prototypes "
                    f"(entropy {share:.1%} of ln K)"
                )
        cosine = monitors["cls_cosine"]
        if cosine > SAME_DIRECTION:
            return f"the CLS tokens of different slices are the same (mean cosine {cosine:.4f})"
        return None

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


def exact_dtype(x: Tensor) -> torch.dtype:
    """Return the precision of the losses: float32 at least, whatever autocast makes of tokens."""
    return torch.promote_types(x.dtype, torch.float32)


def _spread(cls: Float[Tensor, "b d"]) -> dict[str, Tensor]:
    """Measure how far CLS tokens of different slices lie apart.

    Returns:
        Mean cosine, and mean distance to the nearest neighbour.
    """
    directions = nn.functional.normalize(cls, dim=-1)
    cosines = directions @ directions.T
    b = len(cls)
    mean = (cosines.sum() - cosines.trace()) / max(1, b * (b - 1))
    nearest = cosines.clone().fill_diagonal_(-2).amax(1).clamp(-1, 1)
    return {"cls_cosine": mean, "cls_nearest": (2 - 2 * nearest).clamp(min=0).sqrt().mean()}
