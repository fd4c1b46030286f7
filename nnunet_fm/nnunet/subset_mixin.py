"""Training on a part of the training split."""

from typing import cast

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_fm.nnunet.train_subset import TrainSubset


class SubsetMixin:
    """Trains on the part of the training split that the plans name; validation is unchanged."""

    def do_split(self) -> tuple[list[str], list[str]]:
        """Cut the training side of nnU-Net's split to `train_subset` of the plans."""
        trainer = cast(nnUNetTrainer, self)
        train, validation = super().do_split()  # type: ignore[misc]
        subset = TrainSubset.from_plans(trainer.plans_manager.plans)
        selected = subset.select(train)
        if len(selected) < len(train):
            trainer.print_to_log_file(
                f"train_subset {subset.to_json()}: {len(selected)} of {len(train)} training cases"
            )
        return selected, validation
