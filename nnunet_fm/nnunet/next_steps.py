"""What the planner tells the user to type next, as this machine can run it."""

from pathlib import Path
from typing import Any

from nnunet_fm.nnunet.commands import device_words
from nnunet_fm.nnunet.datasets import dataset_id
from nnunet_fm.nnunet.file_names import SPLITS_JSON
from nnunet_fm.nnunet.plan_options import NO_ENCODER
from nnunet_fm.nnunet.splits import ALL, NNUNET_FOLDS, Fold, fold_split, labelled_cases
from nnunet_fm.nnunet.train_subset import TrainSubset
from nnunet_fm.nnunet.training_seed import TRAINING_SEED


def default_trainer(encoder: str, spatial_dims: int = 2, mix_slices: int | None = None) -> str:
    """Name the trainer for `-tr` where the user gives none."""
    if encoder == NO_ENCODER:
        return "SubsetTrainer"
    if mix_slices is not None:
        return "FrozenDinoTrainer25D"
    return "FrozenDinoTrainer" if spatial_dims == 2 else "FrozenVolumeTrainer"


def preprocess_command(plans: dict[str, Any], configuration: str) -> list[str]:
    """Return the command that preprocesses the data of a configuration."""
    number = str(dataset_id(plans["dataset_name"]))  # nnUNetv2_preprocess accepts only ids
    argv = ["nnUNetv2_preprocess", "-d", number, "-plans_name", plans["plans_name"]]
    return [*argv, "-c", configuration]


def train_command(
    plans: dict[str, Any], configuration: str, trainer: str, fold: Fold, device: str
) -> list[str]:
    """Return nnU-Net's training command."""
    number = str(dataset_id(plans["dataset_name"]))
    argv = ["nnUNetv2_train", number, configuration, str(fold)]
    return [*argv, "-tr", trainer, "-p", plans["plans_name"], *device_words(device)]


def subset_report(preprocessed: Path, plans: dict[str, Any], fold: Fold) -> list[str]:
    """Report which cases of a fold are trained on, and the seed of the training."""
    report = []
    if fold == ALL:
        report.append(
            f"{len(labelled_cases(preprocessed))} cases are too few for nnU-Net's {NNUNET_FOLDS} "
            "folds: fold all trains and validates on every case, so its scores are not those of "
            f"unseen cases. For folds, write a {SPLITS_JSON}"
        )
    subset = TrainSubset.from_plans(plans)
    if subset.ratio < 1:
        split = fold_split(preprocessed, fold)
        share = f"{100 * subset.ratio:g} % of the training cases"
        if split is not None:
            chosen = len(subset.select(split["train"]))
            share += f", {chosen} of {len(split['train'])} in fold {fold}"
        report.append(f"trains on {share} (seed {subset.seed}, {subset.rule})")
    if plans.get(TRAINING_SEED) is not None:
        report.append(f"training seed {plans[TRAINING_SEED]}: on the CPU, trainings are bit-equal")
    return report
