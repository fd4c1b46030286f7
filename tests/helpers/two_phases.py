"""A method of two phases outside the package, and the same steps written plainly.

A generator repaints slices, a discriminator tells them from real ones. `install` makes the method
known through an entry point, as an installed package would.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from nnunet_fm.encoders import Encoder
from nnunet_fm_pretrain.data.sampling import SampleOrder
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.data.store import Store
from nnunet_fm_pretrain.engine.method import Method
from nnunet_fm_pretrain.engine.objective import Exported, Losses, Objective
from nnunet_fm_pretrain.engine.recipe import ObjectiveRecipe, Recipe


class AdversarialObjective(ObjectiveRecipe):
    """Its one setting: the weight of the distance between a slice and the repainted one."""

    distance: float = 1.0


class AdversarialRecipe(Recipe):
    """What every recipe has, and the objective."""

    objective: AdversarialObjective


class Slices(Dataset[Tensor]):
    """Slices of a step as they are stored."""

    def __init__(self, store: SliceStore, recipe: AdversarialRecipe, rank: int, ranks: int) -> None:
        self.store, self.rank, self.ranks = store, rank, ranks
        self.order = SampleOrder(len(store), recipe.optimiser.batch_size, recipe.seed)

    def __getitem__(self, step: int) -> Tensor:
        samples = self.order.samples(step, self.rank, self.ranks)
        return torch.stack(
            [torch.from_numpy(self.store.read(self.order.index_of(n)))[None] for n in samples]
        )


class Adversarial(Objective):
    """The generator repaints a slice, the discriminator tells repainted slices from real ones."""

    all_phases = ("generator", "discriminator")

    def __init__(self, recipe: AdversarialRecipe) -> None:
        super().__init__()
        self.recipe = recipe
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

    def trainable_modules(self, phase: str) -> Mapping[str, nn.Module]:
        return {phase: getattr(self, phase)}

    def forward(self, batch: Tensor, step: int, phase: str) -> Losses:
        loss = phase_loss(self, batch, phase, self.recipe.objective.distance)
        return Losses(loss, {}, {})

    def before_step(self, step: int, phase: str) -> None:
        self.gradients.append(
            {k: None if p.grad is None else p.grad.clone() for k, p in self.named_parameters()}
        )

    def load_encoder(self, encoder: Encoder) -> None:
        raise NotImplementedError

    def export_encoder(self) -> Exported:
        raise NotImplementedError


def phase_loss(networks: Any, batch: Tensor, phase: str, distance: float) -> Tensor:
    """Non-saturating adversarial losses; the generator also keeps to the slice."""
    softplus = nn.functional.softplus
    painted = networks.generator(batch)
    if phase == "generator":
        fooled = softplus(-networks.discriminator(painted)).mean()
        return distance * (painted - batch).abs().mean() + fooled
    real = softplus(-networks.discriminator(batch)).mean()
    return real + softplus(networks.discriminator(painted.detach())).mean()


class AdversarialMethod(Method):
    name = "adversarial"
    recipe = AdversarialRecipe
    find_unused_parameters = True

    def open_store(self, folder: Path) -> Store:
        return SliceStore(folder)

    def build(self, recipe: Recipe) -> Objective:
        return Adversarial(cast(AdversarialRecipe, recipe))


METHOD = AdversarialMethod()


def install(folder: Path, name: str = "adversarial") -> Path:
    """Write the metadata of an installed package that offers the method; returns the folder."""
    metadata = folder / "adversarial_plugin-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: adversarial-plugin\nVersion: 1.0\n"
    )
    (metadata / "entry_points.txt").write_text(
        f"[nnunet_fm_pretrain.methods]\n{name} = helpers.two_phases:METHOD\n"
    )
    return folder


def adversarial_recipe(steps: int = 4, **parts: Any) -> dict[str, Any]:
    """Plain data of a recipe."""
    optimiser = {"steps": steps, "batch_size": 4, "peak_lr": 1e-3, "warmup_steps": 1, "clip": 0.05}
    run = {"precision": "32-true", "workers": 0, "save_every": 3, "log_every": 2}
    return {
        "encoder": {"architecture": "none"},
        "objective": {"method": "adversarial"},
        "optimiser": optimiser,
        "run": run,
        **parts,
    }


def plain_steps(
    start: Mapping[str, Tensor],
    recipe: AdversarialRecipe,
    batches: list[Tensor],
    rates: Mapping[str, list[float]],
) -> tuple[list[dict[str, Tensor | None]], dict[str, Tensor]]:
    """Gradients of each phase and final weights of the loop as one would write it by hand."""
    made: Any = Adversarial(recipe)
    made.load_state_dict(start)
    parts = {phase: getattr(made, phase) for phase in Adversarial.all_phases}
    optimisers = {
        phase: torch.optim.AdamW(
            [
                {"params": [p for p in part.parameters() if p.ndim > 1]},
                {"params": [p for p in part.parameters() if p.ndim < 2], "weight_decay": 0.0},
            ],
            betas=recipe.optimiser_of(phase).betas,
            weight_decay=recipe.optimiser_of(phase).weight_decay,
        )
        for phase, part in parts.items()
    }
    gradients: list[dict[str, Tensor | None]] = []
    for step, batch in enumerate(batches):
        for phase, part in parts.items():
            loss = phase_loss(made, batch, phase, recipe.objective.distance)
            own = list(part.parameters())
            of_phase = dict(zip(own, torch.autograd.grad(loss, own), strict=True))
            gradients.append({k: of_phase.get(p) for k, p in made.named_parameters()})
            for parameter, gradient in of_phase.items():
                parameter.grad = gradient.clone()
            largest = recipe.optimiser_of(phase).clip
            if largest is not None:
                nn.utils.clip_grad_norm_(own, largest)
            for group in optimisers[phase].param_groups:
                group["lr"] = rates[phase][step]
            optimisers[phase].step()
            made.zero_grad()
    return gradients, made.state_dict()
