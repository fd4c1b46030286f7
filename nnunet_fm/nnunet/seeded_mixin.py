"""Trainings that repeat: the trainer's side of `training_seed`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from nnunet_fm.internal.threads import torch_threads
from nnunet_fm.nnunet.file_names import BEST_CHECKPOINT
from nnunet_fm.nnunet.seeded_batches import start_batches
from nnunet_fm.nnunet.training_seed import (
    Draw,
    TrainingSeed,
    deterministic_algorithms,
    prepare_cublas,
)


class SeededMixin:
    """Draws everything from `training_seed` of the plans; without it, trains as nnU-Net does.

    Initial weights, the random numbers of an epoch (dropout) and of a batch (cases, patches,
    augmentation) each have their own seeds, derived from the number of the epoch or batch. So a
    resumed training continues as if it had never stopped, and the number of nnU-Net's augmentation
    processes has no effect.
    """

    @property
    def training_seed(self) -> TrainingSeed | None:
        """The seed of the plans; None if there is none."""
        trainer = cast(nnUNetTrainer, self)
        return TrainingSeed.from_plans(trainer.plans_manager.plans, trainer.local_rank)

    def initialize(self) -> None:
        """Draw the initial weights."""
        if self.training_seed is not None:
            prepare_cublas()
            self.training_seed.seed_process(Draw.WEIGHTS)
        super().initialize()  # type: ignore[misc]

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Make nnU-Net's loaders, whose batches come in an order of their own if seeded.

        They fork processes. A fork of a process with several threads hangs in its first matrix
        product, as OpenMP waits for threads that it does not have.
        """
        with torch_threads(1):
            return self._make_loaders(self.training_seed)

    def _make_loaders(self, seed: TrainingSeed | None) -> tuple[Any, Any]:
        if seed is None:
            return cast(tuple[Any, Any], super().get_dataloaders())  # type: ignore[misc]
        trainer = cast(nnUNetTrainer, self)
        with _no_processes():
            training, validation = super().get_dataloaders()  # type: ignore[misc]
        processes = get_allowed_n_proc_DA()
        pin = trainer.device.type == "cuda"
        epoch = trainer.current_epoch
        return (
            start_batches(
                training.data_loader,
                seed,
                Draw.TRAINING_BATCH,
                epoch * trainer.num_iterations_per_epoch,
                processes,
                pin,
            ),
            start_batches(
                validation.data_loader,
                seed,
                Draw.VALIDATION_BATCH,
                epoch * trainer.num_val_iterations_per_epoch,
                (processes + 1) // 2,
                pin,
            ),
        )

    def on_train_start(self) -> None:
        """Report the seed, and how far it reaches on this device."""
        super().on_train_start()  # type: ignore[misc]
        seed = self.training_seed
        if seed is None:
            return
        trainer = cast(nnUNetTrainer, self)
        how = "repeats bit for bit on a CPU of this kind with as many threads"
        if trainer.device.type != "cpu":
            how = (
                "repeats as far as torch's deterministic algorithms go: operations that have "
                "none, of which torch warns, may differ in the last digits"
            )
        trainer.print_to_log_file(
            f"training seed {seed.seed}: {how} (torch threads: {torch.get_num_threads()})"
        )
        if trainer.current_epoch > 0:
            self._decide_on_best_checkpoint()

    def _decide_on_best_checkpoint(self) -> None:
        """Decide whether the last epoch was the best one.

        nnU-Net does that after saving the latest checkpoint, which a killed training resumes from.
        """
        trainer = cast(nnUNetTrainer, self)
        latest = trainer.logger.get_value("ema_fg_dice", step=-1)
        if trainer._best_ema is not None and not latest > trainer._best_ema:
            return
        trainer._best_ema = latest
        trainer.current_epoch -= 1  # nnU-Net saves the number of the next epoch
        trainer.save_checkpoint(str(Path(trainer.output_folder) / BEST_CHECKPOINT))
        trainer.current_epoch += 1

    def on_epoch_start(self) -> None:
        """Seed what the network draws in this epoch."""
        if self.training_seed is not None:
            self.training_seed.seed_process(Draw.EPOCH, cast(nnUNetTrainer, self).current_epoch)
        super().on_epoch_start()  # type: ignore[misc]

    def run_training(self) -> None:
        """Train with deterministic algorithms if seeded; nnU-Net asks for the fastest ones."""
        if self.training_seed is None:
            super().run_training()  # type: ignore[misc]
            return
        with deterministic_algorithms():
            super().run_training()  # type: ignore[misc]

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Validate with deterministic algorithms if seeded."""
        if self.training_seed is None:
            super().perform_actual_validation(save_probabilities)  # type: ignore[misc]
            return
        with deterministic_algorithms():
            super().perform_actual_validation(save_probabilities)  # type: ignore[misc]


@contextmanager
def _no_processes() -> Iterator[None]:
    """Let nnU-Net make loaders without processes."""
    original = stock.get_allowed_n_proc_DA
    stock.get_allowed_n_proc_DA = lambda: 0
    try:
        yield
    finally:
        stock.get_allowed_n_proc_DA = original
