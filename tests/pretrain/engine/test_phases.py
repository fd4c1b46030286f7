"""Methods of several phases: each phase trains what it owns, on its own gradients.

The method of these tests is installed through an entry point: nothing in the package knows it.
"""

import csv
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import yaml
from lightning_fabric import Fabric

from helpers import two_phases
from helpers.pretraining import run_two_processes
from helpers.two_phases import AdversarialRecipe, adversarial_recipe, plain_steps
from nnunet_fm.cli.main import main
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.engine import checkpoints
from nnunet_fm_pretrain.engine.loop import Engine
from nnunet_fm_pretrain.engine.optimiser import learning_rate
from nnunet_fm_pretrain.methods.recipes import parse_recipe

TESTS = Path(__file__).parents[2]
# Of sums whose terms are up to 1: the gradient of the discriminator's last bias nearly cancels.
ROUNDING = torch.finfo(torch.float32).eps
SLOWER = {"discriminator": {"peak_lr": 2e-4, "warmup_steps": 2, "clip": None}}


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_phases.install(tmp_path_factory.mktemp("plugin"))


@pytest.fixture(autouse=True)
def _installed(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(plugin))


def recipe(steps: int = 4, **parts: Any) -> AdversarialRecipe:
    return cast(AdversarialRecipe, parse_recipe(adversarial_recipe(steps, **parts), "test"))


def engine(given: AdversarialRecipe, store: SliceStore, run: Path) -> Engine:
    fabric = Fabric(accelerator="cpu", devices=1)
    return Engine(two_phases.METHOD, given, store, run, None, fabric)


def by_hand(given: AdversarialRecipe, store: SliceStore, start: Any) -> Any:
    steps = range(given.optimiser.steps)
    source: Any = two_phases.Slices(store, given, 0, 1)
    rates = {
        phase: [learning_rate(step, given.optimiser_of(phase)) for step in steps]
        for phase in two_phases.Adversarial.all_phases
    }
    return plain_steps(start, given, [source[step] for step in steps], rates)


@pytest.mark.parametrize("optimisers", [{}, SLOWER])
def test_each_phase_has_the_gradients_of_a_plain_loop(
    store: SliceStore, tmp_path: Path, optimisers: Any
) -> None:
    given = recipe(optimisers=optimisers)
    made = engine(given, store, tmp_path)
    objective: Any = made.objective
    start = {k: v.clone() for k, v in objective.state_dict().items()}
    made.train()
    gradients, weights = by_hand(given, store, start)
    assert len(objective.gradients) == len(gradients) == 8
    for ours, plain in zip(objective.gradients, gradients, strict=True):
        for name, gradient in plain.items():
            if gradient is None:
                assert ours[name] is None, name
            else:
                assert torch.allclose(ours[name], gradient, rtol=1e-5, atol=ROUNDING), name
    for name, value in weights.items():
        assert torch.allclose(objective.state_dict()[name], value, rtol=1e-5, atol=1e-7), name


def test_phases_do_not_change_which_parameters_are_trainable(
    store: SliceStore, tmp_path: Path
) -> None:
    made = engine(recipe(2), store, tmp_path)
    made.train()
    frozen = [k for k, p in made.objective.named_parameters() if not p.requires_grad]
    assert frozen == ["scale"]
    assert all(p.grad is None for p in made.objective.parameters())


def assert_same_state(first: Any, second: Any) -> None:
    for key, value in first["objective"].items():
        assert torch.equal(second["objective"][key], value), key
    assert first["optimisers"].keys() == second["optimisers"].keys()
    for phase, state in first["optimisers"].items():
        for number, moments in state["state"].items():
            for key, value in moments.items():
                assert torch.equal(second["optimisers"][phase]["state"][number][key], value)


def test_a_stopped_run_of_two_phases_continues_bit_equal(store: SliceStore, tmp_path: Path) -> None:
    given = recipe(6, optimisers=SLOWER)
    engine(given, store, tmp_path).train()
    last = checkpoints.latest(tmp_path)
    whole = torch.load(last)
    last.unlink()
    engine(given, store, tmp_path).train()
    resumed = torch.load(last)
    assert set(resumed["optimisers"]) == {"generator", "discriminator"}
    assert_same_state(whole, resumed)


def test_two_processes_equal_the_plain_loop_and_resume_bit_equal(
    store: SliceStore, tmp_path: Path, plugin: Path
) -> None:
    content = adversarial_recipe(6, optimisers=SLOWER)
    given = cast(AdversarialRecipe, parse_recipe(content, "test"))
    file, run = tmp_path / "r.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(content))
    start = {k: v.clone() for k, v in two_phases.METHOD.build(given).state_dict().items()}
    run_two_processes(file, store.folder, run, plugin, TESTS)
    last = checkpoints.latest(run)
    whole = torch.load(last)
    _, weights = by_hand(given, store, start)
    for name, value in weights.items():
        assert torch.allclose(whole["objective"][name], value, rtol=1e-4, atol=1e-6), name
    last.unlink()
    run_two_processes(file, store.folder, run, plugin, TESTS)
    assert_same_state(whole, torch.load(last))


def test_the_command_line_and_doctor_take_a_method_of_another_package(
    store: SliceStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run = tmp_path / "r.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(adversarial_recipe(optimisers=SLOWER)))
    words = ["--store", str(store.folder), "-o", str(run), "--accelerator", "cpu"]
    assert main(["pretrain", "run", str(file), *words, "objective.distance=2"]) == 0
    assert yaml.safe_load((run / "recipe.yaml").read_text())["objective"] == {
        "method": "adversarial",
        "distance": 2.0,
    }
    first, second = csv.DictReader((run / "log.csv").read_text().splitlines())
    assert float(first["discriminator_lr"]) == pytest.approx(1.5e-4)
    assert float(first["generator_lr"]) == pytest.approx(1e-3)
    losses = float(second["loss"]), float(second["samples_per_s"])
    assert all(value > 0 for value in losses)
    capsys.readouterr()
    main(["pretrain", "doctor", "--store", str(store.folder), "--recipe", str(file)])
    printed = capsys.readouterr().out
    assert "method adversarial" in printed
    assert "samples/s" in printed


def test_unknown_phases_and_methods_are_refused(store: SliceStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"optimisers.critic.*Allowed: discriminator, generator"):
        engine(recipe(optimisers={"critic": {"peak_lr": 1.0}}), store, tmp_path)
    with pytest.raises(ValueError, match="warmup_steps is 9; allowed: at most steps"):
        recipe(optimisers={"generator": {"warmup_steps": 9}})
    with pytest.raises(ValueError, match=r"Did you mean optimisers.generator.peak_lr"):
        recipe(optimisers={"generator": {"peak_rl": 1.0}})
    with pytest.raises(ValueError, match=r"unknown pretraining method 'adversary'.*adversarial"):
        recipe(objective={"method": "adversary"})
