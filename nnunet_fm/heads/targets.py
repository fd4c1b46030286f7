"""Targets of a task: numbers read from the text of a table, and which rows are skipped."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Integer

from nnunet_fm.data.cell_numbers import read_numbers
from nnunet_fm.data.subject_table import Row
from nnunet_fm.data.table_rows import is_missing
from nnunet_fm.heads.label_checks import check_labels
from nnunet_fm.heads.subsets import quantile_strata, survival_strata
from nnunet_fm.heads.task import Task
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some

# from this many cases on, "all events before all censored times" is not a coincidence
SUSPICIOUS = 20
STATUS = {"0": False, "1": True, "false": False, "true": True}
Values = Float[np.ndarray, " n"]
Events = Bool[np.ndarray, " n"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Targets:
    """Targets of the rows that have one.

    Attributes:
        kept: numbers of these rows in the table.
        values: class number, number, or time of each row.
        events: survival: whether the time ends with an event; all True for other kinds.
        classes: label of each class number; empty if the task is not a classification.
        left_out: number of rows without a target or an event status, or with a label that is
            skipped.
    """

    kept: Integer[np.ndarray, " n"]
    values: Values
    events: Events
    classes: tuple[str, ...]
    left_out: int

    def of(self, rows: Integer[np.ndarray, "..."]) -> "Targets":
        """Select the targets of some rows."""
        return replace(
            self, kept=self.kept[rows], values=self.values[rows], events=self.events[rows]
        )

    def strata(self, rows: Integer[np.ndarray, " m"], kind: str) -> list[object]:
        """Return the strata of some rows.

        Classification: the class. Regression: the quarter of the value. Survival: the event and the
        quarter of the time.
        """
        values = self.values[rows]
        if kind == "classification":
            return [int(value) for value in values]
        if kind == "regression":
            return [int(quarter) for quarter in quantile_strata(values)]
        return list(survival_strata(values, self.events[rows]))


@dataclass(frozen=True)
class _Column:
    """The rows of a table that have a target, and the text of their targets."""

    kept: Integer[np.ndarray, " n"]
    texts: list[str]
    events: Events


def read_targets(task: Task, rows: Sequence[Row]) -> Targets:
    """Read the targets of a table's rows.

    Raises:
        ValueError: a column does not exist, a value is not a number, a status is neither 0 nor 1, a
            label is in no class, labels differ only in case or number format, there is only one
            class or no event, or the events merely mean "before a certain day".
    """
    for name in (task.target, task.event):
        if name and name not in rows[0].values:
            raise InputError(
                f"the table has no column {name!r}; it has: {some(list(rows[0].values), 12)}"
            )
    column = _read_column(task, rows)
    if task.threshold is not None:
        targets = _threshold_classes(task, column, task.threshold)
    elif task.kind == "classification":
        targets = _label_classes(task, column)
    else:
        values = read_numbers(task.target, column.texts)
        if task.loss == "stroke_days":
            _check_times(task.target, values)
        targets = Targets(column.kept, values, column.events, (), 0)
    if task.kind == "survival":
        targets = _survival(task, targets)
    if targets.classes and len(set(targets.values)) < 2:
        raise InputError(
            f"{task.target} has {len(set(targets.values))} classes among the cases; "
            "allowed: 2 or more"
        )
    return replace(targets, left_out=len(rows) - len(targets.kept))


def _read_column(task: Task, rows: Sequence[Row]) -> _Column:
    kept = [n for n, row in enumerate(rows) if _has_target(task, row)]
    events = np.ones(len(kept), bool)
    if task.event:
        events = _read_status(task.event, [rows[n].values[task.event] for n in kept])
    return _Column(np.array(kept, int), [rows[n].values[task.target] for n in kept], events)


def _has_target(task: Task, row: Row) -> bool:
    """Return whether a row has a target, and an event status if the task needs one.

    A word for missing values that the task names as a class is a label.
    """
    text = row.values[task.target]
    if task.event and is_missing(row.values[task.event]):
        return False
    return text in (task.classes or {}) or not is_missing(text)


def _read_status(column: str, texts: Sequence[str]) -> Events:
    """Read the status at the end of the time: 1 or true with an event, 0 or false without."""
    status = {text: _status(text) for text in texts}
    if None in status.values():
        counts = Counter(texts)
        seen = [f"{text} ({counts[text]} rows)" for text in sorted(counts)]
        coding = ""
        if {text.removesuffix(".0") for text in counts} == {"1", "2"}:
            coding = " If 1 is censored and 2 is an event, as in R's survival, subtract 1."
        raise InputError(
            f"column {column} holds {some(seen, 8)}; allowed: 1 or true for an event, 0 or false "
            f"for a censored time, and an empty cell for an unknown status, which is left out."
            f"{coding} Recode the column"
        )
    return np.array([status[text] for text in texts], bool)


def _status(text: str) -> bool | None:
    """Return a status of 0, 1, 0.0, 1.0, true or false; None for anything else."""
    return STATUS.get(text.lower().removesuffix(".0"))


def _threshold_classes(task: Task, column: _Column, threshold: float) -> Targets:
    """Classify a number; the class of a case censored up to the threshold is unknown."""
    numbers = read_numbers(task.target, column.texts)
    if task.event:
        _check_times(task.target, numbers)
    above = numbers > threshold
    known = column.events | above
    classes = (f"<={threshold:g}", f">{threshold:g}")
    kept = column.kept[known]
    return Targets(kept, above.astype(float)[known], np.ones(len(kept), bool), classes, 0)


def _label_classes(task: Task, column: _Column) -> Targets:
    numbers = task.classes
    if not numbers:
        check_labels(task.target, column.texts)
        numbers = {label: number for number, label in enumerate(sorted(set(column.texts)))}
    unknown = sorted(set(column.texts) - set(numbers))
    if unknown:
        raise InputError(
            f"labels {some(unknown)} of {task.target} are in no class; name them under `classes`"
        )
    known = np.array([numbers[text] is not None for text in column.texts], bool)
    values = [numbers[text] for text in column.texts if numbers[text] is not None]
    return Targets(
        column.kept[known],
        np.array(values, float),
        column.events[known],
        _class_names(numbers),
        0,
    )


def _survival(task: Task, targets: Targets) -> Targets:
    """Check the events, and skip subjects that were censored too early."""
    _check_events(task, targets.values, targets.events)
    earliest = task.exclude_censored_before or 0
    kept = targets.events | (targets.values >= earliest)
    if targets.events[kept].all() and not targets.events.all():
        logger.warning(
            "exclude_censored_before=%g excludes all %d censored rows; the largest %s is %g: give "
            "both in one unit",
            earliest,
            (~targets.events).sum(),
            task.target,
            targets.values.max(),
        )
    return targets.of(np.flatnonzero(kept))


def _check_events(task: Task, times: Values, events: Events) -> None:
    if not events.any():
        raise InputError(f"no event: {task.event} is 1 nowhere; a survival task needs some")
    _check_times(task.target, times)
    if len(times) < SUSPICIOUS:
        return
    censored = times[~events]
    end_of_study = len(set(censored)) <= 1  # all censored at one time, as in a real study
    if not end_of_study and times[events].max() <= censored.min():
        raise InputError(
            f"{task.event} is 1 exactly where {task.target} is at most {times[events].max():g}: "
            "a label 'before that day', not an event. Give the recorded event, or use a threshold "
            "(classification)"
        )


def _check_times(column: str, times: Values) -> None:
    if (times < 0).any():
        raise InputError(
            f"{column} is negative in {int((times < 0).sum())} rows; allowed: 0 and more"
        )


def _class_names(numbers: dict[str, int | None]) -> tuple[str, ...]:
    """Join the labels of each class number with `/`."""
    used = sorted({number for number in numbers.values() if number is not None})
    if used != list(range(len(used))):
        raise InputError(f"classes are numbered {used}; allowed: 0, 1, 2, ... without gaps")
    names = []
    for number in used:
        names.append("/".join(label for label, n in numbers.items() if n == number))
    if len(set(names)) < len(names):
        raise InputError(f"two classes have one name: {some(names)}; rename a label in the table")
    return tuple(names)
