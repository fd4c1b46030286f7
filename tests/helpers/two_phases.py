"""A tiny generator and discriminator: a method of two phases, and the same steps written plainly."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from nnunet_fm.encoders import Encoder
from nnunet_fm_pretrain.data.sampling import SampleOrder
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.engine.objective import Exported, Losses, Objective
from nnunet_fm_pretrain.engine.recipe import Recipe

SIDE = 32


class Slices(Dataset[Tensor]):
    """Slices of a step as they are stored."""

    def __init__(self, store: SliceStore, recipe: Recipe, rank: int, ranks: int) -> None:
        self.store, self.rank, self.ranks = store, rank, ranks
        self.order = SampleOrder(len(store), recipe.optimiser.batch_size, recipe.seed)

    def __getitem__(self, step: int) -> Tensor:
        samples = self.order.samples(step, self.rank, self.ranks)
        return torch.stack(
            [torch.from_numpy(self.store.read(self.order.slice_of(n)))[None] for n in samples]
        )


class Adversarial(Objective):
    """The generator repaints a slice, the discriminator tells repainted slices from real ones."""

    all_phases = ("generator", "discriminator")

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            self.generator = nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, 1, 3, padding=1)
            )
            self.discriminator = nn.Sequential(
                nn.Conv2d(1, 4, 4, stride=4), nn.GELU(), nn.Flatten(), nn.Linear(4 * 8 * 8, 1)
            )
            self.scale = nn.Parameter(torch.ones(()), requires_grad=False)
        self.gradients: list[dict[str, Tensor | None]] = []  # of all parameters, a phase each

    def batches(self, store: SliceStore, rank: int, ranks: int) -> Dataset[Tensor]:
        return Slices(store, self.recipe, rank, ranks)

    def owned(self, phase: str) -> Mapping[str, nn.Module]:
        return {phase: getattr(self, phase)}

    def forward(self, batch: Tensor, step: int, phase: str) -> Losses:
        return Losses(phase_loss(self.generator, self.discriminator, batch, phase), {}, {})

    def before_step(self, step: int) -> None:
        self.gradients.append(
            {k: None if p.grad is None else p.grad.clone() for k, p in self.named_parameters()}
        )

    def load_encoder(self, encoder: Encoder) -> None:
        raise NotImplementedError

    def alarm(self, monitors: Mapping[str, float]) -> str | None:
        return None

    def exported(self) -> Exported:
        raise NotImplementedError


def phase_loss(generator: nn.Module, discriminator: nn.Module, batch: Tensor, phase: str) -> Tensor:
    """Non-saturating adversarial losses; the generator also keeps to the slice."""
    painted = generator(batch)
    softplus = nn.functional.softplus
    if phase == "generator":
        return (painted - batch).abs().mean() + softplus(-discriminator(painted)).mean()
    return softplus(-discriminator(batch)).mean() + softplus(discriminator(painted.detach())).mean()


def plain_steps(
    start: Mapping[str, Tensor], recipe: Recipe, batches: list[Tensor], rates: list[float]
) -> tuple[list[dict[str, Tensor | None]], dict[str, Tensor]]:
    """Gradients of each phase and final weights of the loop as one would write it by hand."""
    made: Any = Adversarial(recipe)
    made.load_state_dict(start)
    o = recipe.optimiser
    parts = {phase: getattr(made, phase) for phase in Adversarial.all_phases}
    optimisers = {
        phase: torch.optim.AdamW(
            [
                {"params": [p for p in part.parameters() if p.ndim > 1]},
                {"params": [p for p in part.parameters() if p.ndim < 2], "weight_decay": 0.0},
            ],
            betas=o.betas,
            weight_decay=o.weight_decay,
        )
        for phase, part in parts.items()
    }
    gradients: list[dict[str, Tensor | None]] = []
    for batch, rate in zip(batches, rates, strict=True):
        for phase, part in parts.items():
            loss = phase_loss(made.generator, made.discriminator, batch, phase)
            own = list(part.parameters())
            of_phase = dict(zip(own, torch.autograd.grad(loss, own), strict=True))
            gradients.append({k: of_phase.get(p) for k, p in made.named_parameters()})
            for parameter, gradient in of_phase.items():
                parameter.grad = gradient.clone()
            nn.utils.clip_grad_norm_(own, o.clip)
            for group in optimisers[phase].param_groups:
                group["lr"] = rate
            optimisers[phase].step()
            made.zero_grad()
    return gradients, made.state_dict()
