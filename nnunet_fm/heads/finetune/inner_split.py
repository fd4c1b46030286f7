"""Which training subjects a network is trained on, and which of them choose the epoch."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

from nnunet_fm.heads.fitting import TrainingCases
from nnunet_fm.heads.subsets import deal_into_folds, subject_strata
from nnunet_fm.internal.errors import InputError


class InnerSplit(NamedTuple):
    """Numbers of the cases to train on, and of those that choose the epoch (may be none)."""

    train: Integer[Tensor, " t"]
    validation: Integer[Tensor, " v"]


def inner_split(cases: TrainingCases, share: float, seed: int) -> InnerSplit:
    """Split the cases by subject, stratified as folds are.

    Args:
        cases: of one training.
        share: of the subjects that choose the epoch, rounded to one fold of several; 0: none.
        seed: number of the fold that chooses.

    Raises:
        InputError: a side has no subject, or lacks a class.
    """
    count, kind = len(cases.subjects), cases.task.kind
    everything = torch.arange(count)
    if not share:
        return InnerSplit(everything, everything[:0])
    folds = round(1 / share)
    strata = cases.targets.strata(np.arange(count), kind)
    fold = deal_into_folds(subject_strata(cases.subjects, strata, kind), folds)
    chosen = np.array([fold[subject] for subject in cases.subjects]) == seed % folds
    classes = cases.targets.values if cases.targets.classes else np.zeros(count)
    if not set(classes[chosen]) == set(classes[~chosen]) == set(classes):
        raise InputError(
            f"{count} training cases are too few for finetune.validation={share:g}: the subjects "
            "that choose the epoch, or the others, lack a class; type finetune.validation=0 to "
            "keep the last epoch"
        )
    validation = torch.from_numpy(chosen)
    return InnerSplit(everything[~validation], everything[validation])
