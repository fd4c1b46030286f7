"""The order of samples: sample number n alone decides the slice, so a run can be continued anywhere."""

from functools import lru_cache

import numpy as np

from nnunet_fm.internal.errors import InputError


class SampleOrder:
    """Every slice once an epoch, in an order drawn from (seed, epoch).

    Args:
        slices: how many there are.
        batch_size: samples per step, over all ranks.
        seed: of the run.

    Raises:
        ValueError: fewer slices than a batch.
    """

    def __init__(self, slices: int, batch_size: int, seed: int) -> None:
        if slices < batch_size:
            raise InputError(
                f"the store holds {slices} slices, fewer than one batch of {batch_size}; "
                "prepare more volumes, or lower optimiser.batch_size"
            )
        self.slices, self.batch_size, self.seed = slices, batch_size, seed

    def slice_of(self, sample: int) -> int:
        """Number of the slice that sample number `sample` shows."""
        epoch, place = divmod(sample, self.slices)
        return int(_permutation(self.seed, epoch, self.slices)[place])

    def samples(self, step: int, rank: int = 0, ranks: int = 1) -> range:
        """Sample numbers of one rank at a step; all ranks together see the same ones whatever their number.

        Raises:
            ValueError: the batch cannot be shared out evenly.
        """
        if self.batch_size % ranks:
            raise InputError(
                f"optimiser.batch_size {self.batch_size} on {ranks} devices; allowed: a multiple of the devices"
            )
        share = self.batch_size // ranks
        first = step * self.batch_size + rank * share
        return range(first, first + share)


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, slices: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(slices).astype(np.int32)
