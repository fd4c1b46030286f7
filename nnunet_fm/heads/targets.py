"""Targets of a task: from the strings of a table to numbers, strata, and what is left out and why."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Integer

from nnunet_fm.data.subject_table import Row, is_missing
from nnunet_fm.heads.subsets import quantile_strata, survival_strata
from nnunet_fm.heads.task import Task
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some

SUSPICIOUS = (
    20  # cases from which on it is no accident that all events come before all censored times
)


@dataclass(frozen=True)
class Targets:
    """Of the rows that have one.

    Attributes:
        kept: numbers of these rows.
        values: class number, number, or time.
        events: survival only; elsewhere all True.
        classes: labels by class number; empty if it is no classification.
        left_out: how many rows have no target, or a label that is left out.
    """

    kept: Integer[np.ndarray, " n"]
    values: Float[np.ndarray, " n"]
    events: Bool[np.ndarray, " n"]
    classes: tuple[str, ...]
    left_out: int

    def of(self, rows: Integer[np.ndarray, "..."]) -> "Targets":
        """Of some of the rows."""
        return replace(
            self, kept=self.kept[rows], values=self.values[rows], events=self.events[rows]
        )

    def strata(self, rows: Integer[np.ndarray, " m"], kind: str) -> list[object]:
        """What subsets of these rows are stratified by: class, quarter of the value, or event and quarter of time."""
        values = self.values[rows]
        if kind == "classification":
            return [int(v) for v in values]
        if kind == "regression":
            return [int(v) for v in quantile_strata(values)]
        return list(survival_strata(values, self.events[rows]))


def read_targets(task: Task, rows: Sequence[Row]) -> Targets:
    """The targets of a table's rows.

    Raises:
        ValueError: no such column, no number where one is needed, a label without a class, one
            class only, no event, or events that are only a label "before a certain day".
    """
    for column in filter(None, (task.target, task.event)):
        if column not in rows[0].values:
            raise InputError(
                f"the table has no column {column!r}; it has: {some(list(rows[0].values), 12)}"
            )
    there = [n for n, row in enumerate(rows) if not is_missing(row.values[task.target])]
    texts = [rows[n].values[task.target] for n in there]
    kept = np.array(there, int)
    classes: tuple[str, ...] = ()
    events = np.ones(len(kept), bool)
    if task.event:
        events = _numbers(task.event, [rows[n].values[task.event] for n in there]) == 1
    if task.threshold is not None:
        numbers = _numbers(task.target, texts)
        known = events | (numbers > task.threshold)
        values, kept = (numbers > task.threshold).astype(float)[known], kept[known]
        events, classes = (
            np.ones(len(kept), bool),
            (f"<={task.threshold:g}", f">{task.threshold:g}"),
        )
    elif task.kind == "classification":
        of_label = task.classes or {label: n for n, label in enumerate(sorted(set(texts)))}
        if strange := sorted(set(texts) - set(of_label)):
            raise InputError(
                f"labels {some(strange)} of {task.target} are in no class; name them under `classes`"
            )
        known = np.array([of_label[text] is not None for text in texts], bool)
        kept, events, classes = kept[known], events[known], _names(of_label)
        values = np.array([of_label[text] for text in texts if of_label[text] is not None], float)
    else:
        values = _numbers(task.target, texts)
    if task.kind == "survival":
        _check_events(task, values, events)
        stays = events | (values >= (task.exclude_censored_before or 0))
        kept, values, events = kept[stays], values[stays], events[stays]
    if classes and len(set(values)) < 2:
        raise InputError(
            f"{task.target} has {len(set(values))} classes among the cases; allowed: 2 or more"
        )
    return Targets(kept, values, events, classes, len(rows) - len(kept))


def _check_events(
    task: Task, times: Float[np.ndarray, " n"], events: Bool[np.ndarray, " n"]
) -> None:
    if not events.any():
        raise InputError(f"no event: {task.event} is 1 nowhere; a survival task needs some")
    if (times < 0).any():
        raise InputError(
            f"{task.target} is negative in {int((times < 0).sum())} rows; allowed: 0 and more"
        )
    censored = times[~events]  # all at one time: the end of the study
    if (
        len(times) >= SUSPICIOUS
        and len(set(censored)) > 1
        and times[events].max() <= censored.min()
    ):
        raise InputError(
            f"{task.event} is 1 exactly where {task.target} is at most {times[events].max():g}: a label "
            "'before that day', no event. Give the recorded event, or use a threshold (classification)"
        )


def _names(numbers: dict[str, int | None]) -> tuple[str, ...]:
    used = sorted({n for n in numbers.values() if n is not None})
    if used != list(range(len(used))):
        raise InputError(f"classes are numbered {used}; allowed: 0, 1, 2, ... without gaps")
    return tuple("/".join(label for label, n in numbers.items() if n == number) for number in used)


def _numbers(column: str, texts: Sequence[str]) -> Float[np.ndarray, " n"]:
    try:
        values = np.array([float(t) for t in texts])
    except ValueError as error:
        raise InputError(f"column {column} holds what is no number: {error}") from None
    if not np.isfinite(values).all():
        raise InputError(
            f"column {column} holds values that are not finite; leave them empty or write n/a"
        )
    return values
