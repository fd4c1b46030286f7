"""Stock nnU-Net on a part of the training split: the baseline."""

from typing import ClassVar

from nnunet_fm.nnunet.base_trainer import BaseTrainer


class SubsetTrainer(BaseTrainer):
    """Stock nnU-Net on the plans' part of the training split: the baseline of a data-ratio sweep.

    Attributes:
        schedule: (epochs, iterations, validation iterations) of a shorter variant; nnU-Net's own
            if None.
    """

    schedule: ClassVar[tuple[int, int, int] | None] = None

    def initialize(self) -> None:
        """Apply the schedule, then build the network as nnU-Net does."""
        if self.schedule is not None:
            self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = (
                self.schedule
            )
        # epochs that a killed run can lose; nnU-Net's own trainer: 50
        self.save_every = max(1, min(50, self.num_epochs // 20))
        super().initialize()
