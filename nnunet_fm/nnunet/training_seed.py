"""The seed that makes a training a function of plans, data and code."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from torch.backends import cudnn
from torch.utils import deterministic as deterministic_module

from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.option_types import LARGEST_SEED
from nnunet_fm.nnunet.train_subset import TrainSubset

TRAINING_SEED = "training_seed"  # key of plans; absent where the training is not seeded


class Draw(IntEnum):
    """What is drawn; each has random numbers of its own."""

    WEIGHTS = 0
    EPOCH = 1  # dropout
    TRAINING_BATCH = 2
    VALIDATION_BATCH = 3


@dataclass(frozen=True)
class TrainingSeed:
    """Seeds of everything that a training draws, from numbers that a resumed training has too.

    The seed of the subset counts: two subset seeds are two trainings even where both select all
    cases.

    Attributes:
        seed: `training_seed` of the plans.
        subset_seed: seed of the plans' subset.
        rank: number of the DDP process, which draws its own batches.
    """

    seed: int
    subset_seed: int
    rank: int = 0

    @classmethod
    def from_plans(cls, plans: dict[str, Any], rank: int = 0) -> "TrainingSeed | None":
        """Read the seed of plans; None if the training is not seeded.

        Raises:
            ValueError: it is no whole number in the allowed range.
        """
        seed = plans.get(TRAINING_SEED)
        if seed is None:
            return None
        is_number = isinstance(seed, int) and not isinstance(seed, bool)
        if not is_number or not 0 <= seed <= LARGEST_SEED:
            raise InputError(
                f"{TRAINING_SEED} of the plans is {seed!r}; allowed: a whole number from 0 to "
                f"{LARGEST_SEED}. Write them again: nnunet-fm plan ... --training-seed N"
            )
        return cls(seed, TrainSubset.from_plans(plans).seed, rank)

    def numbers(self, draw: Draw, number: int) -> tuple[int, int, int]:
        """Derive seeds for Python's, NumPy's and torch's generator.

        Args:
            draw: what is drawn.
            number: of the epoch or the batch, counted from 0 over the whole training.
        """
        sequence = np.random.SeedSequence((self.seed, self.subset_seed, self.rank, draw, number))
        words = sequence.generate_state(3)
        return int(words[0]), int(words[1]), int(words[2])

    def seed_process(self, draw: Draw, number: int = 0) -> None:
        """Seed this process, its GPU included."""
        for_python, for_numpy, for_torch = self.numbers(draw, number)
        random.seed(for_python)
        np.random.seed(for_numpy)
        torch.manual_seed(for_torch)

    @contextmanager
    def seeded(self, draw: Draw, number: int) -> Iterator[None]:
        """Seed the generators of the CPU, and put their former state back at the end."""
        former = (random.getstate(), np.random.get_state(), torch.get_rng_state())
        for_python, for_numpy, for_torch = self.numbers(draw, number)
        random.seed(for_python)
        np.random.seed(for_numpy)
        torch.default_generator.manual_seed(for_torch)
        try:
            yield
        finally:
            random.setstate(former[0])
            np.random.set_state(former[1])
            torch.set_rng_state(former[2])


def write_training_seed(plans: dict[str, Any], seed: int | None) -> None:
    """Write a seed into plans; None removes the one of the plans that these derive from."""
    plans.pop(TRAINING_SEED, None)
    if seed is not None:
        plans[TRAINING_SEED] = seed


def seed_suffix(seed: int | None) -> str:
    """Return what names of plans and runs have for a seed: `_t3`; empty without one."""
    return "" if seed is None else f"_t{seed}"


def prepare_cublas() -> None:
    """Let cuBLAS repeat itself; it reads the variable when the GPU is first used."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Use torch's deterministic algorithms where it has them; it warns where it has none."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = cudnn.benchmark
    settings: Any = deterministic_module
    fill = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    cudnn.benchmark = False
    settings.fill_uninitialized_memory = False  # which takes time, and nothing reads it
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        cudnn.benchmark = benchmark
        settings.fill_uninitialized_memory = fill
