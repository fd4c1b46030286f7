"""Each trainer of the catalogue is found by nnU-Net and takes a step in this process."""

import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from helpers.catalogue import TRAINERS, catalogue


def test_nnunet_finds_every_trainer_in_a_fresh_process(nnunet: dict[str, str]) -> None:
    program = (
        "import sys\n"
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        "for name in sys.argv[1:]: print('found', find(name).__name__)"
    )
    words = [sys.executable, "-W", "ignore", "-c", program, *TRAINERS]
    done = subprocess.run(
        words, env=os.environ | nnunet, capture_output=True, text=True, check=True
    )
    assert [
        line.split()[1] for line in done.stdout.splitlines() if line.startswith("found")
    ] == TRAINERS
    assert "FrozenDinoTrainer" in TRAINERS


def test_no_trainer_has_a_stock_name_or_overrides_what_nnunet_reads() -> None:
    stock = Path(inspect.getfile(nnUNetTrainer)).parent
    for name in TRAINERS:
        trainer = getattr(catalogue(), name)
        assert not any(f"class {name}(" in p.read_text() for p in stock.rglob("*.py"))
        assert trainer.__init__ is nnUNetTrainer.__init__
        assert trainer.build_network_architecture is nnUNetTrainer.build_network_architecture


def test_the_paper_recipe_is_the_default() -> None:
    recipe = catalogue().FrozenDinoTrainer.recipe
    assert (recipe.epochs, recipe.iterations, recipe.learning_rate, recipe.weight_decay) == (
        100,
        250,
        3e-4,
        0.05,
    )
    assert recipe.betas == (0.9, 0.98)
    assert recipe.encoder_learning_rate is None


@pytest.mark.parametrize("name", TRAINERS)
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
