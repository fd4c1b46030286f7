"""The order of samples: sample number n is the whole state, so a run can be resumed anywhere."""

from functools import lru_cache

import numpy as np

from nnunet_fm.internal.errors import InputError


class SampleOrder:
    """Every unit of a store (slice or volume) once an epoch, in an order drawn from (seed, epoch).

    Args:
        units: how many there are.
        batch_size: samples per step, over all ranks.
        seed: of the run.
        unit: what a unit is called in messages.

    Raises:
        ValueError: fewer units than a batch.

    Example:
        >>> order = SampleOrder(units=10, batch_size=4, seed=0)
        >>> list(order.samples(step=2))
        [8, 9, 10, 11]
        >>> order.index_of(8) in range(10)
        True
    """

    def __init__(self, units: int, batch_size: int, seed: int, unit: str = "slices") -> None:
        if units < batch_size:
            raise InputError(
                f"the store holds {units} {unit}, fewer than one batch of {batch_size}; "
                "prepare more volumes, or lower optimiser.batch_size"
            )
        self.units, self.batch_size, self.seed = units, batch_size, seed

    def index_of(self, sample: int) -> int:
        """Return the number of the unit that sample number `sample` shows."""
        epoch, place = divmod(sample, self.units)
        return int(_permutation(self.seed, epoch, self.units)[place])

    def samples(self, step: int, rank: int = 0, ranks: int = 1) -> range:
        """Return the sample numbers of one rank at a step.

        All ranks together see the same samples whatever their number.

        Raises:
            ValueError: the batch is not a multiple of the ranks.
        """
        if self.batch_size % ranks:
            raise InputError(
                f"optimiser.batch_size {self.batch_size} on {ranks} devices; "
                "allowed: a multiple of the devices"
            )
        share = self.batch_size // ranks
        first = step * self.batch_size + rank * share
        return range(first, first + share)


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, units: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(units).astype(np.int32)
