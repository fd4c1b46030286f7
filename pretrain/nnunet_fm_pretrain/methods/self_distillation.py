"""Self-distillation: a student learns the targets of a teacher, which is its moving average.

The targets are distributions over prototypes (DINO, Caron et al., arXiv:2104.14294). Centre and
teacher move once a step, however many micro-batches it has.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float
from lightly.loss import KoLeoLoss
from lightly.models.utils import update_momentum
from lightly.utils.dist import gather, world_size
from lightly.utils.scheduler import cosine_schedule
from torch import Tensor, nn

from nnunet_fm_pretrain.engine.objective import Objective
from nnunet_fm_pretrain.engine.recipe import Recipe
from nnunet_fm_pretrain.methods.distillation_recipe import DistillationRecipe
from nnunet_fm_pretrain.methods.prototype_loss import (
    Distilled,
    cross_entropy,
    logits,
    sinkhorn_bias,
)

UNIFORM = 0.98  # of ln K: a larger mean entropy of the targets means that they are all uniform
SAME = 0.02  # of ln K: a smaller entropy of their mean means that they are all the same
TOLD_APART = 0.005  # of ln K: the least by which the entropy of their mean has to be larger
SMALLEST = 1e-12  # sum of targets; without rows it is 0
SAME_DIRECTION = 0.995  # mean cosine of CLS tokens


class Projected(NamedTuple):
    """The output of a head for some views, and the prototypes that it is compared with."""

    rows: Float[Tensor, "v n d"]
    prototypes: Float[Tensor, "k d"]


class SelfDistillation(Objective):
    """Student and teacher, their centres and their schedule.

    A subclass builds the networks in `_build_networks` and computes its losses with `_distil`.

    Args:
        recipe: of the run; the networks are initialised from its seed.
        prototypes: how many there are, by name of the loss.
        centring: `mean` (moving average of the teacher's logits) or `sinkhorn` (DINOv3).

    Attributes:
        koleo_over_ranks: whether KoLeo looks for neighbours among the samples of all ranks.
    """

    recipe: Any
    settings: DistillationRecipe
    koleo_over_ranks = False

    def __init__(
        self,
        recipe: Recipe,
        prototypes: Mapping[str, int],
        centring: Literal["mean", "sinkhorn"] = "mean",
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.settings = recipe.objective  # type: ignore[assignment]
        self.prototypes, self.centring = dict(prototypes), centring
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            self.student, self.teacher = self._build_networks()
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        if recipe.run.checkpointing:
            self.student.encoder.set_gradient_checkpointing(True)
        self.koleo = KoLeoLoss()
        self._seen: dict[str, Tensor] = {}  # sums over the micro-batches of a step
        for name, count in prototypes.items():
            self.register_buffer(f"{name}_centre", torch.zeros(count))
            self.register_buffer(f"{name}_next_centre", torch.zeros(count), persistent=False)

    def _build_networks(self) -> tuple[Any, Any]:
        """Build student and teacher, with an `encoder` each; their parameters correspond."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> "SelfDistillation":
        """Switch to training mode; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def trainable_modules(self, phase: str) -> Mapping[str, nn.Module]:
        """Return the encoder and the other parts of the student."""
        return dict(self.student.named_children())

    def _distil(
        self,
        name: str,
        student: Projected,
        teacher: Projected,
        pairs: Float[Tensor, "v t"],
        weights: Float[Tensor, " n"],
        step: int,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute a cross-entropy between views, see `cross_entropy`.

        Returns:
            The loss; and, as monitors, the mean entropy of the targets, and the entropy of their
            mean over all rows of the step so far.
        """
        cold = self.teacher_temperature(step)
        with torch.no_grad():
            bias = self._bias(name, teacher.rows.flatten(0, 1), teacher.prototypes, cold)
        temperatures = (self.settings.student_temperature, cold)
        result = cross_entropy(*student, *teacher, bias, pairs, weights, temperatures)
        return result.loss, self._target_monitors(name, result, teacher.rows[..., 0].numel())

    def _target_monitors(self, name: str, result: Distilled, rows: int) -> dict[str, Tensor]:
        """Return the mean entropy of a step's targets so far, and the entropy of their mean."""
        sums = torch.cat([rows * result.mean_target, rows * result.entropy[None]])
        if world_size() > 1:
            dist.all_reduce(sums)
        self._seen[f"{name}_targets"] = sums = sums + self._seen.get(f"{name}_targets", 0)
        used, entropy = sums[:-1], sums[-1]
        total = used.sum().clamp(min=SMALLEST)
        marginal = torch.special.entr(used / total).sum()
        return {f"{name}_entropy": entropy / total, f"{name}_marginal": marginal}

    def _bias(self, name: str, rows: Tensor, prototypes: Tensor, temperature: float) -> Tensor:
        if self.centring == "sinkhorn":
            return sinkhorn_bias(rows, prototypes, temperature)
        centre = getattr(self, f"{name}_centre")
        # the mean of the logits is the logit of the mean
        both = torch.cat([rows.sum(0), rows.new_tensor([len(rows)])])
        if world_size() > 1:
            dist.all_reduce(both)
        self._seen[name] = both = both + self._seen.get(name, 0)
        mean = logits(both[None, :-1] / both[-1].clamp(min=1), prototypes)[0]
        m = self.settings.centre_momentum
        setattr(self, f"{name}_next_centre", m * centre + (1 - m) * mean)
        return -centre / temperature

    def _koleo(self, cls: Float[Tensor, "2 b d"]) -> Tensor:
        """Sum KoLeo over the two global crops, in float32.

        Without the other ranks' samples, DistributedDataParallel averages the ranks' losses.
        """
        with torch.autocast(cls.device.type, enabled=False):
            crops = list(cls.to(exact_dtype(cls)))
            if world_size() > 1 and self.koleo_over_ranks:
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

    def _last_layers(self) -> Iterable[nn.Parameter]:
        """Return the student's prototypes."""
        raise NotImplementedError

    def before_step(self, step: int, phase: str) -> None:
        """Keep the prototypes as they are in the first steps."""
        self._seen.clear()
        if step < self.settings.freeze_last_layer_steps:
            for layer in self._last_layers():
                layer.grad = None

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the teacher and the centre."""
        self._seen.clear()
        update_momentum(self.student, self.teacher, self.momentum(step))
        if self.centring == "mean":
            for name in self.prototypes:
                getattr(self, f"{name}_centre").copy_(getattr(self, f"{name}_next_centre"))

    def _watched(self) -> Iterable[str]:
        """Return the names of the losses whose targets are watched."""
        return self.prototypes

    def collapse_warning(self, monitors: Mapping[str, float]) -> str | None:
        """Warn of uniform targets, one target for all, or one direction of all CLS tokens."""
        for name in self._watched():
            prototypes = self.prototypes[name]
            share = monitors[f"{name}_entropy"] / math.log(prototypes)
            if share > UNIFORM:
                return (
                    f"the teacher's {name} targets are uniform "
                    f"(entropy {share:.1%} of ln K): nothing is taught"
                )
            used = monitors[f"{name}_marginal"] / math.log(prototypes)
            if used < SAME:
                return (
                    f"the teacher's {name} targets are all the same prototype "
                    f"(entropy of their mean {used:.1%} of ln K)"
                )
            if used - share < TOLD_APART:
                return (
                    f"the teacher's {name} targets do not distinguish images (mean entropy "
                    f"{share:.1%}, entropy of their mean {used:.1%} of ln K)"
                )
        cosine = monitors["cls_cosine"]
        if cosine > SAME_DIRECTION:
            return f"the CLS tokens of different images are the same (mean cosine {cosine:.4f})"
        return None


def all_other_views(student_cls: Float[Tensor, "v b d"]) -> tuple[Tensor, Tensor]:
    """Return weights of pairs and samples: each global view of the teacher with all other views.

    The sum of the weights is 1.
    """
    views, samples = student_cls.shape[:2]
    pairs = 1 - torch.eye(views, 2, device=student_cls.device, dtype=exact_dtype(student_cls))
    return pairs / pairs.sum(), pairs.new_full((samples,), 1 / samples)


def exact_dtype(x: Tensor) -> torch.dtype:
    """Return the precision of the losses: float32 at least, whatever autocast makes of tokens."""
    return torch.promote_types(x.dtype, torch.float32)


def spread(cls: Float[Tensor, "b d"]) -> dict[str, Tensor]:
    """Measure how far CLS tokens of different samples lie apart.

    Returns:
        Mean cosine, and mean distance to the nearest neighbour.
    """
    with torch.autocast(cls.device.type, enabled=False):  # bfloat16 has no cosine near 1
        directions = nn.functional.normalize(cls, dim=-1)
        cosines = directions @ directions.T
    b = len(cls)
    mean = (cosines.sum() - cosines.trace()) / max(1, b * (b - 1))
    nearest = cosines.clone().fill_diagonal_(-2).amax(1).clamp(-1, 1)
    return {"cls_cosine": mean, "cls_nearest": (2 - 2 * nearest).clamp(min=0).sqrt().mean()}
