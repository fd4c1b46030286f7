"""Train/test splits by subject: the table's column `split` or folds, and training subsets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer

from nnunet_fm.heads.metrics import TrueTargets
from nnunet_fm.heads.subsets import deal_into_folds, stratified_subset, subject_strata
from nnunet_fm.heads.task_data import TaskData
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some

Cases = Integer[np.ndarray, "..."]  # numbers of cases
COLUMN = "column split"


@dataclass(frozen=True)
class Split:
    """Training and tested cases of one model."""

    train: Cases
    test: Cases


def make_splits(data: TaskData) -> tuple[list[Split], str]:
    """Split by the table's column `split`, or by subject into folds.

    Returns:
        One split, or one per fold; and the name of the way of splitting.

    Raises:
        ValueError: test subjects without training subjects, validation subjects without test
            subjects, or a training side without one of the classes or without an event.
    """
    column = np.array(data.splits)
    if (column == "test").any():
        name = COLUMN
        splits = [Split(np.flatnonzero(column == "train"), np.flatnonzero(column == "test"))]
        if not len(splits[0].train):
            raise InputError("the column split has test subjects and no train; give both")
    elif (column == "val").any():
        raise InputError(
            "the column split has val and no test; call the rows to test `test`, or empty the "
            "column for cross-validation"
        )
    else:
        name = f"{data.task.folds} folds"
        splits = _make_folds(data)
    for split in splits:
        _check_split(data, split, name)
    return splits, name


def tested_cases(data: TaskData, splits: Sequence[Split]) -> tuple[Cases, TrueTargets]:
    """Return the numbers of the tested cases, split after split, and their targets."""
    cases = np.concatenate([split.test for split in splits])
    folds = [np.full(len(split.test), number) for number, split in enumerate(splits)]
    return cases, data.true_targets(cases, np.concatenate(folds))


def subset(data: TaskData, train: Cases, ratio: float, seed: int) -> Cases:
    """Select the training cases of a share of the subjects, see `stratified_subset`.

    Raises:
        ValueError: the subset has no case of one of the classes.
    """
    strata = _subject_strata(data, train)
    subjects = set(stratified_subset(list(strata), list(strata.values()), ratio, seed))
    cases = np.array([case for case in train if data.subjects[case] in subjects])
    _check_classes(data, cases, f"training case at ratio {ratio:g}")
    return cases


def fold_numbers(data: TaskData, cases: Cases, folds: int) -> Integer[np.ndarray, " n"]:
    """Assign a fold to each case, see `deal_into_folds`."""
    fold = deal_into_folds(_subject_strata(data, cases), folds)
    return np.array([fold[data.subjects[case]] for case in cases])


def inner_folds(data: TaskData, train: Cases, folds: int) -> Iterator[Split]:
    """Divide training cases into folds, for the choice of a threshold.

    Raises:
        ValueError: a training side lacks a class.
    """
    fold = fold_numbers(data, train, folds)
    for number in range(folds):
        held_out = fold == number
        if not held_out.any():
            continue
        others = train[~held_out]
        if len(set(data.targets.values[others])) < len(data.targets.classes):
            raise InputError(
                f"{len(train)} training cases are too few for youden_folds={folds}: "
                "a class is missing"
            )
        yield Split(others, train[held_out])


def _make_folds(data: TaskData) -> list[Split]:
    cases = np.arange(len(data.names))
    fold = fold_numbers(data, cases, data.task.folds)
    splits = [Split(cases[fold != n], cases[fold == n]) for n in range(data.task.folds)]
    return [split for split in splits if len(split.test)]


def _subject_strata(data: TaskData, cases: Cases) -> dict[str, object]:
    """Return the stratum of each subject, see `subject_strata`."""
    subjects = [data.subjects[case] for case in cases]
    return subject_strata(subjects, data.targets.strata(cases, data.task.kind), data.task.kind)


def _check_split(data: TaskData, split: Split, name: str) -> None:
    _check_classes(data, split.train, f"training case ({name})")
    if name == COLUMN:  # the folds together test every class
        _check_classes(data, split.test, f"tested case ({name})")
    if data.task.kind == "survival" and not data.targets.events[split.train].any():
        raise InputError(
            f"no event among the {len(split.train)} training cases ({name}); "
            "a risk cannot be learned without events"
        )


def _check_classes(data: TaskData, cases: Cases, which: str) -> None:
    classes = data.targets.classes
    present = set(data.targets.values[cases].astype(int)) if classes else set()
    absent = [label for number, label in enumerate(classes) if number not in present]
    if absent:
        raise InputError(
            f"no {which} is of {some(absent)}; every class needs cases on both sides: "
            "try fewer folds, or skip the class (null under `classes`)"
        )
