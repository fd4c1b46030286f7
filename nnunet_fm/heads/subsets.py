"""Nested, stratified subsets of the training subjects."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer

from nnunet_fm.data.nested_subset import nested_subset
from nnunet_fm.internal.errors import InputError

QUANTILES = 4


def stratified_subset(
    subjects: Sequence[str], strata: Sequence[object], ratio: float, seed: int
) -> list[str]:
    """A share of the subjects of each stratum; a larger ratio of the same seed holds a smaller one.

    Within a stratum subjects are ordered by the hash of (seed, subject), so that neither the order
    of the table nor a subject more or less changes much.

    Args:
        subjects: each once.
        strata: of each subject, e.g. its class.
        ratio: share, in (0, 1].
        seed: of the order.

    Returns:
        Chosen subjects, in the given order; at least one of each stratum.

    Raises:
        ValueError: an impossible ratio, or a subject twice.
    """
    if len(set(subjects)) < len(subjects):
        raise InputError("a subject comes twice; subsets are drawn of subjects, each once")
    groups: dict[object, list[str]] = {}
    for subject, stratum in zip(subjects, strata, strict=True):
        groups.setdefault(stratum, []).append(subject)
    chosen: set[str] = set()
    for group in groups.values():
        chosen.update(nested_subset(group, ratio, seed, order="hash"))
    return [s for s in subjects if s in chosen]


def quantile_strata(values: Float[np.ndarray, " n"]) -> Integer[np.ndarray, " n"]:
    """Quarter that each value lies in."""
    edges = np.quantile(values, np.linspace(0, 1, QUANTILES + 1)[1:-1])
    return np.searchsorted(edges, values, side="right")


def survival_strata(
    times: Float[np.ndarray, " n"], events: Bool[np.ndarray, " n"]
) -> list[tuple[bool, int]]:
    """Whether it was an event, and the quarter of the time among those alike."""
    quarter = np.zeros(len(times), np.int64)
    for kind in (True, False):
        if (events == kind).any():
            quarter[events == kind] = quantile_strata(times[events == kind])
    return [(bool(e), int(q)) for e, q in zip(events, quarter, strict=True)]
