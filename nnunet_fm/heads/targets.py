"""Targets of a task: from the strings of a table to numbers, strata, and what is left out and why."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Integer

from nnunet_fm.features.table import MISSING, Row
from nnunet_fm.heads.subsets import quantile_strata, survival_strata
from nnunet_fm.heads.task import Task
from nnunet_fm.messages import some


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
        return replace(self, kept=self.kept[rows], values=self.values[rows], events=self.events[rows])

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
        ValueError: no such column, no number where one is needed, a label without a class, one class only, no event.
    """
    for column in filter(None, (task.target, task.event)):
        if column not in rows[0].values:
            raise ValueError(f"the table has no column {column!r}; it has: {some(list(rows[0].values), 12)}")
    kept = [n for n, row in enumerate(rows) if row.values[task.target].lower() not in MISSING]
    texts = [rows[n].values[task.target] for n in kept]
    classes: tuple[str, ...] = ()
    if task.kind == "classification":
        numbers = task.classes or {label: n for n, label in enumerate(sorted(set(texts)))}
        if strange := sorted(set(texts) - set(numbers)):
            raise ValueError(f"labels {some(strange)} of {task.target} are in no class; name them under `classes`")
        kept = [n for n, text in zip(kept, texts, strict=True) if numbers[text] is not None]
        values = np.array([numbers[rows[n].values[task.target]] for n in kept], float)
        classes = _names(numbers)
        if len(set(values)) < 2:
            raise ValueError(f"{task.target} has {len(set(values))} classes; allowed: 2 or more")
    else:
        values = _numbers(task.target, texts)
    events = np.ones(len(kept), bool)
    if task.event:
        events = _numbers(task.event, [rows[n].values[task.event] for n in kept]) == 1
        if not events.any():
            raise ValueError(f"no event: {task.event} is 1 nowhere; a survival task needs some")
    return Targets(np.array(kept), values, events, classes, len(rows) - len(kept))


def _names(numbers: dict[str, int | None]) -> tuple[str, ...]:
    used = sorted({n for n in numbers.values() if n is not None})
    if used != list(range(len(used))):
        raise ValueError(f"classes are numbered {used}; allowed: 0, 1, 2, ... without gaps")
    return tuple("/".join(label for label, n in numbers.items() if n == number) for number in used)


def _numbers(column: str, texts: Sequence[str]) -> Float[np.ndarray, " n"]:
    try:
        values = np.array([float(t) for t in texts])
    except ValueError as error:
        raise ValueError(f"column {column} holds what is no number: {error}") from None
    if not np.isfinite(values).all():
        raise ValueError(f"column {column} holds values that are not finite; leave them empty or write n/a")
    return values
