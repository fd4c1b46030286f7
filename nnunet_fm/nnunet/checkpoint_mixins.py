"""Checkpoints that survive a full disk, and that only their own run resumes from."""

from pathlib import Path
from typing import Any, cast

from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_fm.internal.atomic_files import replaced_atomically
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.messages import some
from nnunet_fm.nnunet.checkpoint_file import RESUME, read_checkpoint, restricted_loading
from nnunet_fm.nnunet.file_names import RESUMED_FROM
from nnunet_fm.nnunet.run_identity import plan_differences


class AtomicCheckpointMixin:
    """Writes each checkpoint next to its target and moves it into place."""

    def save_checkpoint(self, filename: str) -> None:
        """Save so that a full disk or a kill leaves the previous checkpoint intact."""
        trainer = cast(nnUNetTrainer, self)
        if trainer.local_rank != 0 or trainer.disable_checkpointing:
            super().save_checkpoint(filename)  # type: ignore[misc]
            return
        folder = Path(trainer.output_folder)
        resumable = any((folder / name).is_file() for name in RESUMED_FROM)
        then = "continue with --c" if resumable else "start the training again, without --c"
        with replaced_atomically(Path(filename), then) as temporary:
            super().save_checkpoint(str(temporary))  # type: ignore[misc]


class StrictResumeMixin:
    """`--c` resumes the run that the plans describe, or is an error.

    Stock nnU-Net silently restarts and overwrites when there is no checkpoint, and never checks
    that a checkpoint matches the plans.
    """

    resumed = False

    def on_train_start(self) -> None:
        """Check before any data is touched.

        Raises:
            FileNotFoundError: `--c` without a checkpoint.
        """
        trainer = cast(nnUNetTrainer, self)
        if trainer.logger.resume and not self.resumed:
            raise MissingFileError(
                f"--c was given, but {trainer.output_folder} holds no checkpoint to continue from. "
                "Omit --c to start this training, or check -tr, -p, configuration and fold"
            )
        super().on_train_start()  # type: ignore[misc]

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Load a checkpoint of this run.

        Raises:
            ValueError: it was trained with other plans (another encoder, other taps, another
                subset), the file is damaged, or needs more than nnU-Net's trainer writes.
        """
        trainer = cast(nnUNetTrainer, self)
        checkpoint = filename_or_checkpoint
        if isinstance(checkpoint, str):
            checkpoint = read_checkpoint(Path(checkpoint), remedy=RESUME)
        former_plans = checkpoint["init_args"]["plans"]
        plans = trainer.plans_manager.plans
        different = plan_differences(former_plans, plans, trainer.configuration_name)
        if different:
            raise InputError(
                f"the checkpoint in {trainer.output_folder} was trained with other plans than "
                f"{trainer.plans_manager.plans_name} is now; different: {some(different)}. Restore "
                "the former plans, or train under another plans name "
                "(nnunet-fm plan ... -o FM_other)"
            )
        del checkpoint
        with restricted_loading(stock, remedy=RESUME):
            super().load_checkpoint(filename_or_checkpoint)  # type: ignore[misc]
        self.resumed = True
