"""Who trains and who is tested: the table's split or folds, by subject, and subsets of the training side."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer

from nnunet_fm.heads.metrics import TrueTargets
from nnunet_fm.heads.subsets import stratified_subset
from nnunet_fm.heads.task_data import Job
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some

Cases = Integer[np.ndarray, "..."]  # numbers of cases

COLUMN = "column split"


@dataclass(frozen=True)
class Split:
    """Training and tested cases of one model."""

    train: Cases
    test: Cases


def splits_of(job: Job) -> tuple[list[Split], str]:
    """One split by the column `split`, or one for each fold of subjects; and what to call it.

    Raises:
        ValueError: tested subjects and none to train on, or a training side without one of the
            classes.
    """
    column = np.array(job.splits)
    if (column == "test").any():
        found, name = (
            [Split(np.flatnonzero(column == "train"), np.flatnonzero(column == "test"))],
            COLUMN,
        )
        if not len(found[0].train):
            raise InputError("the column split has test subjects and no train; give both")
    else:
        found, name = _folds(job), f"{job.task.folds} folds"
    for split in found:
        _check_classes(job, split, name)
    return found, name


def tested_by(job: Job, splits: Sequence[Split]) -> tuple[Cases, TrueTargets]:
    """Numbers of the tested cases of all splits, one split after the other, and their truth."""
    cases = np.concatenate([s.test for s in splits])
    fold = np.concatenate([np.full(len(s.test), number) for number, s in enumerate(splits)])
    return cases, job.tested(cases, fold)


def subset(job: Job, train: Cases, ratio: float, seed: int) -> Cases:
    """Training cases of a share of the subjects; nested and stratified, see `stratified_subset`.

    Raises:
        ValueError: one of the classes has no case among them.
    """
    strata = _strata(job, train)
    chosen = set(stratified_subset(list(strata), list(strata.values()), ratio, seed))
    cases = np.array([case for case in train if job.subjects[case] in chosen])
    _refuse_absent(job, cases, f"training case at ratio {ratio:g}")
    return cases


def fold_numbers(job: Job, cases: Cases, folds: int) -> Integer[np.ndarray, " n"]:
    """Fold of each of some cases: subjects of a stratum are dealt out in the order of their hash."""
    strata = _strata(job, cases)
    order = sorted(strata, key=lambda s: (str(strata[s]), hashlib.sha256(s.encode()).digest()))
    fold = {subject: place % folds for place, subject in enumerate(order)}
    return np.array([fold[job.subjects[case]] for case in cases])


def _folds(job: Job) -> list[Split]:
    everybody = np.arange(len(job.names))
    fold = fold_numbers(job, everybody, job.task.folds)
    pairs = [Split(everybody[fold != f], everybody[fold == f]) for f in range(job.task.folds)]
    return [p for p in pairs if len(p.test)]


def _strata(job: Job, cases: Cases) -> dict[str, object]:
    """Stratum of each subject of some cases: the classes of all of them, or what the first one is."""
    found: dict[str, list[object]] = {}
    for case, stratum in zip(cases.tolist(), job.targets.strata(cases, job.task.kind), strict=True):
        found.setdefault(job.subjects[case], []).append(stratum)
    if job.task.kind == "classification":
        return {subject: tuple(sorted(set(strata), key=str)) for subject, strata in found.items()}
    return {subject: strata[0] for subject, strata in found.items()}


def _check_classes(job: Job, split: Split, name: str) -> None:
    _refuse_absent(job, split.train, f"training case ({name})")
    if name == COLUMN:  # the folds together test every class
        _refuse_absent(job, split.test, f"tested case ({name})")
    if job.task.kind == "survival" and not job.targets.events[split.train].any():
        raise InputError(
            f"no event among the {len(split.train)} training cases ({name}); nothing to learn a risk from"
        )


def _refuse_absent(job: Job, cases: Cases, which: str) -> None:
    there = set(job.targets.values[cases].astype(int)) if job.targets.classes else set()
    absent = [label for number, label in enumerate(job.targets.classes) if number not in there]
    if absent:
        raise InputError(
            f"no {which} is of {some(absent)}; every class needs cases on both sides: "
            "try fewer folds, or leave the class out (null under `classes`)"
        )
