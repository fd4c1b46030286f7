"""Draw nested subsets: a larger share of the same items and seed contains every smaller one."""

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from nnunet_fm.internal.errors import InputError


def nested_subset(
    items: Sequence[str], ratio: float, seed: int, order: Literal["permutation", "hash"]
) -> list[str]:
    """Return a share of the items, at least one.

    The two orders are those of version 0.1, so that its results stay reproducible:

    * `permutation` (training splits of nnU-Net): NumPy's seeded permutation of the sorted items;
      the size `len(items) * ratio` is rounded down, as in the BrainDINO release.
    * `hash` (heads): items by the SHA-256 of seed and item, so that adding or removing an item
      hardly changes the subset; the size is rounded to the nearest integer.

    Args:
        items: identifiers, each once.
        ratio: share, in (0, 1].
        seed: seed of the order.
        order: see above.

    Returns:
        The selected items, sorted.

    Raises:
        ValueError: ratio outside (0, 1].

    Example:
        >>> nested_subset(["a", "b", "c", "d"], 0.5, seed=0, order="hash")
        ['a', 'c']
    """
    if not 0 < ratio <= 1:
        raise InputError(f"ratio {ratio}; allowed: above 0, up to 1")
    ordered = sorted(items)
    if order == "hash":
        count = int(ratio * len(ordered) + 0.5)
        ordered.sort(key=lambda item: hashlib.sha256(f"{seed}|{item}".encode()).digest())
    else:
        count = int(len(ordered) * ratio)
        permutation = np.random.default_rng(seed).permutation(len(ordered))
        ordered = [ordered[position] for position in permutation]
    return sorted(ordered[: max(1, count)])
