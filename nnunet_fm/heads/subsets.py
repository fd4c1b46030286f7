"""Stratified subsets and folds of subjects."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer

from nnunet_fm.data.nested_subset import nested_subset
from nnunet_fm.internal.errors import InputError

QUANTILES = 4


def stratified_subset(
    subjects: Sequence[str], strata: Sequence[object], ratio: float, seed: int
) -> list[str]:
    """Select a share of the subjects of each stratum; larger ratios contain smaller ones.

    Within a stratum subjects are ordered by the hash of (seed, subject). So the order of the table
    does not matter, and one subject more or less changes little.

    Args:
        subjects: subject ids, each once.
        strata: stratum of each subject, e.g. its class.
        ratio: share in (0, 1].
        seed: seed of the order.

    Returns:
        Selected subjects in the given order; at least one of each stratum.

    Raises:
        ValueError: the ratio is out of range, or a subject is listed twice.
    """
    if len(set(subjects)) < len(subjects):
        raise InputError("a subject is listed twice; give each subject once")
    groups: dict[object, list[str]] = {}
    for subject, stratum in zip(subjects, strata, strict=True):
        groups.setdefault(stratum, []).append(subject)
    selected: set[str] = set()
    for group in groups.values():
        selected.update(nested_subset(group, ratio, seed, order="hash"))
    return [subject for subject in subjects if subject in selected]


def subject_strata(
    subjects: Sequence[str], strata: Sequence[object], kind: str
) -> dict[str, object]:
    """Return the stratum of each subject: the classes of all its cases, or that of the first.

    Args:
        subjects: subject of each case.
        strata: stratum of each case.
        kind: of the task.
    """
    of_cases: dict[str, list[object]] = {}
    for subject, stratum in zip(subjects, strata, strict=True):
        of_cases.setdefault(subject, []).append(stratum)
    if kind == "classification":
        return {subject: tuple(sorted(set(s), key=str)) for subject, s in of_cases.items()}
    return {subject: s[0] for subject, s in of_cases.items()}


def deal_into_folds(strata: Mapping[str, object], folds: int) -> dict[str, int]:
    """Return the fold of each subject: the subjects of a stratum are dealt out in hash order."""

    def order(subject: str) -> tuple[str, bytes]:
        return str(strata[subject]), hashlib.sha256(subject.encode()).digest()

    return {subject: place % folds for place, subject in enumerate(sorted(strata, key=order))}


def quantile_strata(values: Float[np.ndarray, " n"]) -> Integer[np.ndarray, " n"]:
    """Return the quarter of each value, 0 to 3."""
    edges = np.quantile(values, np.linspace(0, 1, QUANTILES + 1)[1:-1])
    return np.searchsorted(edges, values, side="right")


def survival_strata(
    times: Float[np.ndarray, " n"], events: Bool[np.ndarray, " n"]
) -> list[tuple[bool, int]]:
    """Return for each subject whether it had an event, and the quarter of its time among these."""
    quarter = np.zeros(len(times), np.int64)
    for group in (events, ~events):
        if group.any():
            quarter[group] = quantile_strata(times[group])
    return [(bool(event), int(q)) for event, q in zip(events, quarter, strict=True)]
