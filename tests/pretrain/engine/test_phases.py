"""Methods of several phases: each phase trains what it owns, on its own gradients, and nothing else."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from helpers.pretraining import small_recipe
from helpers.two_phases import Adversarial, plain_steps
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.engine import checkpoints
from nnunet_fm_pretrain.engine.loop import Engine
from nnunet_fm_pretrain.engine.optimiser import learning_rate
from nnunet_fm_pretrain.engine.recipe import Recipe
from nnunet_fm_pretrain.engine.recipe_files import parse_recipe


@pytest.fixture(autouse=True)
def _two_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnunet_fm_pretrain.engine.loop.make_objective", Adversarial)


def recipe(steps: int = 4, **parts: Any) -> Recipe:
    optimiser = {"steps": steps, "warmup_steps": 1, "clip": 0.05}
    return parse_recipe(small_recipe(optimiser=optimiser, **parts), "test")


def engine(given: Recipe, store: SliceStore, run: Path) -> Engine:
    return Engine(given, store, run, None, Fabric(accelerator="cpu", devices=1))


def test_each_phase_has_the_gradients_of_a_plain_loop(store: SliceStore, tmp_path: Path) -> None:
    given = recipe()
    made = engine(given, store, tmp_path)
    objective: Any = made.objective
    start = {k: v.clone() for k, v in objective.state_dict().items()}
    batches = [objective.batches(store, 0, 1)[step] for step in range(4)]
    made.train()
    rates = [learning_rate(step, given.optimiser) for step in range(4)]
    gradients, weights = plain_steps(start, given, batches, rates)
    assert len(objective.gradients) == len(gradients) == 8
    for ours, plain in zip(objective.gradients, gradients, strict=True):
        for name, gradient in plain.items():
            if gradient is None:
                assert ours[name] is None, name
            else:
                assert torch.allclose(ours[name], gradient, rtol=1e-5, atol=1e-8), name
    for name, value in weights.items():
        assert torch.allclose(objective.state_dict()[name], value, rtol=1e-5, atol=1e-7), name


def test_what_was_trainable_stays_trainable_and_what_was_not_does_not(
    store: SliceStore, tmp_path: Path
) -> None:
    made = engine(recipe(2), store, tmp_path)
    made.train()
    frozen = [k for k, p in made.objective.named_parameters() if not p.requires_grad]
    assert frozen == ["scale"]
    assert all(p.grad is None for p in made.objective.parameters())


def test_a_stopped_run_of_two_phases_continues_bit_equal(store: SliceStore, tmp_path: Path) -> None:
    given = recipe(6, run={"save_every": 3})
    engine(given, store, tmp_path).train()
    last = checkpoints.latest(tmp_path)
    whole = torch.load(last)
    last.unlink()
    engine(given, store, tmp_path).train()
    resumed = torch.load(last)
    assert set(resumed["optimisers"]) == {"generator", "discriminator"}
    for key, value in whole["objective"].items():
        assert torch.equal(resumed["objective"][key], value), key
    for phase, state in whole["optimisers"].items():
        for number, moments in state["state"].items():
            for key, value in moments.items():
                assert torch.equal(resumed["optimisers"][phase]["state"][number][key], value)
