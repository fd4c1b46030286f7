"""Each trainer of the catalogue takes a step in this process: what learns, rates, memory."""

import importlib.util
import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2 import paths
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from helpers.nnunet import CONFIGURATION, PLANS
from nnunet_fm.internal.folders import folder
from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.nnunet.plan_options import PlanOptions
from nnunet_fm.nnunet.planning import write_plans
from nnunet_fm.nnunet.recipe import LinearDecay, Recipe, parameter_groups


def catalogue() -> ModuleType:
    specification = importlib.util.spec_from_file_location(
        "catalogue", folder("trainers") / "nnunet_fm_trainers.py"
    )
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


NAMES = sorted(
    n for n, c in vars(catalogue()).items() if inspect.isclass(c) and issubclass(c, nnUNetTrainer)
)


def test_nnunet_finds_every_trainer_in_a_fresh_process(nnunet: dict[str, str]) -> None:
    program = (
        "import sys\n"
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        "for name in sys.argv[1:]: print('found', find(name).__name__)"
    )
    words = [sys.executable, "-W", "ignore", "-c", program, *NAMES]
    done = subprocess.run(
        words, env=os.environ | nnunet, capture_output=True, text=True, check=True
    )
    assert [
        line.split()[1] for line in done.stdout.splitlines() if line.startswith("found")
    ] == NAMES
    assert "FrozenDinoTrainer" in NAMES


def test_no_trainer_has_a_stock_name_or_overrides_what_nnunet_reads() -> None:
    stock = Path(inspect.getfile(nnUNetTrainer)).parent
    for name in NAMES:
        trainer = getattr(catalogue(), name)
        assert not any(f"class {name}(" in p.read_text() for p in stock.rglob("*.py"))
        assert trainer.__init__ is nnUNetTrainer.__init__
        assert trainer.build_network_architecture is nnUNetTrainer.build_network_architecture


def test_the_papers_recipe() -> None:
    recipe = catalogue().FrozenDinoTrainer.recipe
    assert (recipe.epochs, recipe.iterations, recipe.learning_rate, recipe.weight_decay) == (
        100,
        250,
        3e-4,
        0.05,
    )
    assert recipe.betas == (0.9, 0.98)
    assert recipe.encoder_learning_rate is None


@pytest.fixture
def in_process(
    planned: Path, nnunet: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Any]:
    """Makes a trainer of the catalogue in this process."""

    def make(name: str) -> Any:
        for key in ("nnUNet_preprocessed", "nnUNet_results"):
            monkeypatch.setenv(key, nnunet[key])
        monkeypatch.setenv("nnUNet_n_proc_DA", "0")
        assert paths.nnUNet_results.is_set()
        plans_name = "FM_none_r050" if name.startswith("Subset") else PLANS
        configuration = "2d" if name.startswith("Subset") else CONFIGURATION
        if "25D" in name:
            asked = {
                "encoder": "dinov3_test16",
                "fov": "native",
                "patch": (4, 64, 64),
                "batch_size": 2,
                "mix_slices": 3,
            }
            written = write_plans(planned, PlanOptions(**asked, output="FM_mixing_step"))
            plans_name, configuration = written.identifier, written.configuration
        plans = json.loads((planned / f"{plans_name}.json").read_text()) | {
            "continue_training": False
        }
        description = json.loads((planned / "dataset.json").read_text())
        return getattr(catalogue(), name)(plans, configuration, 4, description, torch.device("cpu"))

    return make


@pytest.mark.parametrize("name", NAMES)
def test_every_trainer_takes_a_step(name: str, in_process: Callable[[str], Any]) -> None:
    """In this process: initialise, one training and one validation step, save, load."""
    trainer = in_process(name)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    assert np.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        assert np.isfinite(trainer.validation_step(next(trainer.dataloader_val))["loss"])
    filename = Path(trainer.output_folder) / "checkpoint_latest.pth"
    trainer.logger.log("mean_fg_dice", 0.5, 0)
    trainer.save_checkpoint(str(filename))
    keys = torch.load(filename, weights_only=False)["network_weights"].keys()
    if name.startswith("Frozen"):
        assert not any(k.startswith("encoder.") for k in keys)
        trainer.assert_encoder_unchanged()
    if name.startswith("FineTuned"):
        assert any(k.startswith("encoder.") for k in keys)
        assert all(p.grad is not None for p in trainer.network.parameters() if p.requires_grad)
        assert trainer.network.encoder.vit.cls_token.requires_grad
    trainer.load_checkpoint(str(filename))
    shutil.rmtree(trainer.output_folder)


def test_a_patch_that_cannot_fit_is_refused_with_one_that_can(
    in_process: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = in_process("FrozenDinoTrainerTest")
    trainer.initialize()
    trainer.bare_network.use_kernels(gradient_checkpointing=True)
    needed = trainer._memory_check().saved_bytes((48, 48))
    monkeypatch.setattr("nnunet_fm.internal.device.free_memory", lambda device: 9 * needed // 10)
    message = (
        r"patch 48x48 in batches of \d+ keeps .* GiB are free. Nearest patch that fits: 32x32\."
    )
    small = in_process("FrozenDinoTrainerTest")
    small.initialize()  # enough for validation, which takes a tile at a time
    with pytest.raises(ValueError, match=message):
        small.on_train_start()
    monkeypatch.setattr(
        "nnunet_fm.internal.device.free_memory", lambda device: None
    )  # the system does not say
    in_process("FrozenDinoTrainerTest").on_train_start()
    shutil.rmtree(trainer.output_folder)


def test_a_step_out_of_memory_names_a_patch_and_other_errors_pass(
    in_process: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = in_process("FrozenDinoTrainerTest")
    trainer.initialize()
    for error, expected in (
        (torch.OutOfMemoryError("CUDA out of memory"), MemoryError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), MemoryError),
        (RuntimeError("something else"), RuntimeError),
    ):
        monkeypatch.setattr(nnUNetTrainer, "train_step", Raise(error))
        with pytest.raises(
            expected, match="Nearest patch that fits: 32x32" if expected is MemoryError else "else"
        ):
            trainer.train_step({})
    shutil.rmtree(trainer.output_folder)


class Raise:
    """A function that fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, *_: Any) -> None:
        raise self.error


def test_what_learns_and_how_fast() -> None:
    network = FrozenEncoderNetwork(4, 3, "dinov3_test16")
    groups = parameter_groups(network, Recipe())
    assert [g["weight_decay"] for g in groups] == [0.05, 0.0]
    assert any(p is network.fusion.weight for p in groups[1]["params"])
    assert sum(len(g["params"]) for g in groups) == sum(
        p.requires_grad for p in network.parameters()
    )
    network.unfreeze()
    recipe = Recipe(encoder_learning_rate=3e-5, layer_decay=0.5)
    groups = parameter_groups(network, recipe)
    learns = [p for p in network.parameters() if p.requires_grad]
    assert (
        sum(len(g["params"]) for g in groups) == len(learns) == len(list(network.parameters())) - 1
    )
    assert not network.encoder.mask_token.requires_grad  # used in pretraining only
    assert sorted({g["lr"] for g in groups}) == pytest.approx(
        sorted([3e-4, *(3e-5 * 0.5**i for i in range(6))])
    )
    optimizer = torch.optim.AdamW(groups)
    schedule = LinearDecay(optimizer, 100)
    schedule.step(25)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.75 * 3e-4)
