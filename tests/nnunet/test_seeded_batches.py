"""Batches that depend on their number alone."""

import random

import numpy as np
import pytest
import torch
from batchgenerators.dataloading.data_loader import SlimDataLoaderBase
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.nnunet.random_binary_operator import (
    ApplyRandomBinaryOperatorTransform,
)
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from nnunet_fm.nnunet.seeded_batches import SeededBatches, start_batches
from nnunet_fm.nnunet.training_seed import Draw, TrainingSeed

SEED = TrainingSeed(1, 42)


class Numbers(SlimDataLoaderBase):
    """Batches of random numbers, and of the order that a transform of cascades keeps."""

    def __init__(self) -> None:
        super().__init__(None, 2)
        self.shuffling = ApplyRandomBinaryOperatorTransform(list(range(20)))
        self.blur = GaussianBlurTransform(benchmark=True)
        self.transforms: BasicTransform = ComposeTransforms(
            [RandomTransform(self.shuffling, 0.4), RandomTransform(self.blur, 0.2)]
        )

    def generate_train_batch(self) -> dict[str, list[float]]:
        np.random.shuffle(self.shuffling.channel_idx)
        drawn = [random.random(), float(np.random.rand()), float(torch.rand(1))]
        return {"data": [*drawn, *map(float, self.shuffling.channel_idx)]}


def batches(first: int, processes: int, count: int) -> list[list[float]]:
    augmenter = start_batches(Numbers(), SEED, Draw.TRAINING_BATCH, first, processes)
    try:
        return [next(augmenter)["data"] for _ in range(count)]
    finally:
        if processes:
            augmenter._finish()


def test_batches_are_the_same_for_any_number_of_processes_and_any_beginning() -> None:
    expected = batches(0, 0, 8)
    assert len({tuple(batch) for batch in expected}) == 8
    for processes in (1, 2, 3):
        assert batches(0, processes, 8) == expected
        assert batches(5, processes, 3) == expected[5:]


def test_no_algorithm_is_chosen_by_its_speed() -> None:
    loader = Numbers()
    SeededBatches(loader, SEED, Draw.TRAINING_BATCH, 0, 1)
    assert not loader.blur.benchmark


def test_a_failing_process_ends_the_training(capfd: pytest.CaptureFixture[str]) -> None:
    loader = Numbers()
    loader.generate_train_batch = lambda: 1 / 0
    augmenter = start_batches(loader, SEED, Draw.TRAINING_BATCH, 0, 2)
    with pytest.raises(RuntimeError, match="no longer alive"):
        next(augmenter)
    assert "division by zero" in "".join(capfd.readouterr())
