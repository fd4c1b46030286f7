"""Losses, the choice of the epoch, and the subjects that choose it."""

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_fm.encoders import build_encoder
from nnunet_fm.heads.finetune.inner_split import InnerSplit, inner_split
from nnunet_fm.heads.finetune.network import FineTunedNetwork
from nnunet_fm.heads.finetune.settings import FineTuning
from nnunet_fm.heads.finetune.training import train
from nnunet_fm.heads.fitting import TrainingCases
from nnunet_fm.heads.models.training_target import TrainingTarget
from nnunet_fm.heads.targets import Targets
from nnunet_fm.heads.task import Task

CLASSES = Task(kind="classification", target="y")


def targets_of(values: list[float], *classes: str) -> Targets:
    count = len(values)
    return Targets(np.arange(count), np.array(values), np.ones(count, bool), classes, 0)


def one_weight() -> FineTunedNetwork:
    """A network whose only trained parameter is a factor of the vectors, 1 at first."""
    network = FineTunedNetwork(build_encoder("volta3d_test8"), 0, 24, 1)
    linear = nn.Linear(1, 1, bias=False)
    nn.init.ones_(linear.weight)
    network.head = nn.Sequential(linear)
    return network


def weight_of(network: FineTunedNetwork) -> float:
    return float(network.head.get_parameter("0.weight").detach())


def test_the_epoch_with_the_lowest_validation_loss_is_kept_and_patience_ends() -> None:
    # training pulls the weight from 1 to -1; the validation case is best at 0.8
    task = Task(kind="regression", target="y", standardise_target=False)
    target = TrainingTarget(task, targets_of([-1.0, 0.8]))
    settings = FineTuning(epochs=50, batch_size=1, learning_rate=0.1, weight_decay=0, patience=4)
    rows, vectors = torch.arange(2), torch.ones(2, 1)
    network = one_weight()
    split = InnerSplit(rows[:1], rows[1:])
    done = train(network, lambda r: vectors[r], target, split, settings, 0)
    assert (done.epoch, done.epochs) == (2, 6)
    assert weight_of(network) == pytest.approx(0.8, abs=0.02)
    last = one_weight()
    split = InnerSplit(rows[:1], rows[:0])
    done = train(last, lambda r: vectors[r], target, split, settings, 0)
    assert (done.epoch, done.epochs) == (50, 50)
    assert weight_of(last) < -0.5


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_balanced_classes_weigh_the_same_in_batches_of_any_size(batch: int) -> None:
    targets = targets_of([0.0, 0, 0, 1], "a", "b")
    outputs = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    of_each = nn.functional.cross_entropy(outputs, torch.tensor([0, 0, 0, 1]), reduction="none")
    target = TrainingTarget(CLASSES, targets, balanced=True)
    parts = torch.arange(4).split(batch)
    mean = torch.stack([target.loss(outputs[rows], rows) for rows in parts]).mean()
    assert float(mean) == pytest.approx(float((of_each[:3].mean() + of_each[3]) / 2))
    plain = TrainingTarget(CLASSES, targets)
    mean = torch.stack([plain.loss(outputs[rows], rows) for rows in parts]).mean()
    assert float(mean) == pytest.approx(float(of_each.mean()))


def cases_of(subjects: list[str], values: list[float]) -> TrainingCases:
    return TrainingCases(CLASSES, np.array(subjects), targets_of(values, "a", "b"), subjects)


@pytest.mark.parametrize("seed", range(6))
def test_the_cases_of_a_subject_are_on_one_side(seed: int) -> None:
    subjects = [f"s{n // 2}" for n in range(40)]
    split = inner_split(cases_of(subjects, [float(n // 2 % 2) for n in range(40)]), 0.2, seed)
    train_side = {subjects[n] for n in split.train.tolist()}
    chosen = {subjects[n] for n in split.validation.tolist()}
    assert not train_side & chosen
    assert len(train_side) == 16
    assert len(chosen) == 4
    assert sorted([*split.train.tolist(), *split.validation.tolist()]) == list(range(40))


def test_other_seeds_let_other_subjects_choose() -> None:
    cases = cases_of([f"s{n}" for n in range(20)], [float(n % 2) for n in range(20)])
    chosen = [set(inner_split(cases, 0.2, seed).validation.tolist()) for seed in range(5)]
    assert set.union(*chosen) == set(range(20))


def test_each_side_has_every_class() -> None:
    rare = cases_of([f"s{n}" for n in range(44)], [float(n >= 40) for n in range(44)])
    for seed in range(4):  # four subjects of the class, five folds
        split = inner_split(rare, 0.2, seed)
        assert {int(n) >= 40 for n in split.validation} == {False, True}
        assert {int(n) >= 40 for n in split.train} == {False, True}
    with pytest.raises(ValueError, match="lack a class; type finetune.validation=0"):
        inner_split(rare, 0.2, 4)
    assert not len(inner_split(rare, 0, 4).validation)
