"""Short trainings in this process, undisturbed or killed at an epoch and resumed."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.nnunet import DATASET
from nnunet_fm.nnunet.plan_options import PlanOptions
from nnunet_fm.nnunet.planning import write_plans
from nnunet_fm.nnunet.recipe import Recipe
from nnunet_fm.nnunet.subset_trainer import SubsetTrainer
from nnunet_fm.nnunet.trainer import FrozenEncoder25DTrainer, FrozenEncoderTrainer

EPOCHS = 3
Tensors = dict[str, torch.Tensor]


class ShortTrainer(FrozenEncoderTrainer):
    """Three epochs of three iterations."""

    recipe = Recipe(epochs=EPOCHS, iterations=3, validation_iterations=2, slim_final=True)


class Short25DTrainer(FrozenEncoder25DTrainer):
    """The same with mixed slices."""

    recipe = ShortTrainer.recipe


class ShortSubsetTrainer(SubsetTrainer):
    """The same with stock nnU-Net."""

    schedule = (EPOCHS, 3, 2)


class KilledError(Exception):
    """The training was killed."""


@dataclass
class Bench:
    """Makes trainers of a planned dataset.

    Attributes:
        dataset: its preprocessed folder.
        results: folder for the results; each training has one of its own.
        environment: to set nnU-Net's variables.
    """

    dataset: Path
    results: Path
    environment: pytest.MonkeyPatch

    def plan(self, **options: Any) -> dict[str, Any]:
        """Write plans, small ones where the options name nothing else."""
        small = {"encoder": "dinov3_test16", "patch": (48,), "batch_size": 2, "fov": "native"}
        written = write_plans(self.dataset, PlanOptions(**small | options))
        return written.content | {"asked": written.configuration}

    def trainer(
        self,
        plans: dict[str, Any],
        name: str,
        kind: type = ShortTrainer,
        processes: int = 0,
        resume: bool = False,
    ) -> Any:
        """Make a trainer whose results have a folder of their own."""
        self.environment.setenv("nnUNet_results", str(self.results / name))
        self.environment.setenv("nnUNet_n_proc_DA", str(processes))
        content = json.loads(json.dumps(plans)) | {"continue_training": resume}
        description = json.loads((self.dataset / "dataset.json").read_text())
        trainer = kind(content, content.pop("asked"), 0, description, torch.device("cpu"))
        trainer.logger.plot_progress_png = lambda _: None  # takes most of the time
        if resume:
            trainer.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
        return trainer

    def train(self, *arguments: Any, **options: Any) -> Any:
        """Train to the end; arguments as `trainer`."""
        trainer = self.trainer(*arguments, **options)
        trainer.run_training()
        return trainer

    def kill(self, epoch: int, *arguments: Any, **options: Any) -> None:
        """Train, and end as if killed when an epoch begins."""
        trainer = self.trainer(*arguments, **options)
        trainer.on_train_epoch_start = raises_at(trainer, epoch)
        with pytest.raises(KilledError):
            trainer.run_training()
        for loader in (trainer.dataloader_train, trainer.dataloader_val):
            if hasattr(loader, "_finish"):
                loader._finish()


def raises_at(trainer: Any, epoch: int) -> Callable[[], None]:
    """Wrap the start of an epoch so that it ends the training."""
    original = trainer.on_train_epoch_start

    def start() -> None:
        if trainer.current_epoch == epoch:
            raise KilledError
        original()

    return start


def tensors(trainer: Any, checkpoint: str = "final") -> Tensors:
    """Return all weights and moments of a checkpoint."""
    file = Path(trainer.output_folder) / f"checkpoint_{checkpoint}.pth"
    content = torch.load(file, weights_only=False)
    found = {f"network.{name}": value for name, value in content["network_weights"].items()}
    for number, moments in content["optimizer_state"]["state"].items():
        for name, value in moments.items():
            found[f"optimizer.{number}.{name}"] = torch.as_tensor(value)
    return found


def equal(one: Tensors, other: Tensors) -> bool:
    """Whether two checkpoints are bit-equal."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def bench(
    dataset: Path, nnunet: dict[str, str], results: Path, environment: pytest.MonkeyPatch
) -> Bench:
    """Set nnU-Net's variables for trainings in this process."""
    assert dataset.name == DATASET
    environment.setenv("nnUNet_preprocessed", nnunet["nnUNet_preprocessed"])
    return Bench(dataset, results, environment)
