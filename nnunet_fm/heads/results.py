"""Results of a task and their table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_fm.evaluation.intervals import FEW_STRATIFIED, FEWEST_FOR_BCA, NO_SPREAD, STUDENT
from nnunet_fm.internal.markdown import markdown_table

LOGRANK = "log-rank p"
FEW_CASES = (
    f"Fewer than {FEWEST_FOR_BCA} subjects: the limits of MAE, RMSE and R2 are Student's t limits; "
    "those of AUC, accuracy and C-index are bootstrap limits, which contain the true value less "
    "often than in 95 %."
)
COLUMNS = (
    "model",
    "metric",
    "ratio",
    "n train",
    "n test",
    "mean of seeds",
    "lowest",
    "highest",
    "95 % of the cases",
)


@dataclass(frozen=True)
class Result:
    """One metric of one model.

    Attributes:
        task: name of the task.
        encoder: name of the encoder whose features are used.
        model: name of the model.
        ratio: share of the training subjects.
        seed: seed of the subset and of the head.
        metric: name of the metric, e.g. AUC.
        value: its value over the tested cases.
        low: lower 95 % limit over the tested cases; NaN if there is none.
        high: upper 95 % limit.
        interval: how the limits were computed.
        n_train: number of training cases.
        n_test: number of tested cases.
        tested: `column split`, or the number of folds.
        protocol: `default` or `paper`.
        selection: which training step was selected.
        leakage: description of leakage that was allowed; empty if there is none.
    """

    task: str
    encoder: str
    model: str
    ratio: float
    seed: int
    metric: str
    value: float
    low: float
    high: float
    interval: str
    n_train: int
    n_test: int
    tested: str
    protocol: str = "default"
    selection: str = "last step"
    leakage: str = ""


@dataclass(frozen=True)
class PerturbedResult:
    """One metric of one model under one perturbation.

    Attributes:
        task: name of the task.
        encoder: name of the encoder.
        model: name of the model.
        seed: seed of the head.
        family: family of the perturbation.
        severity: its severity; the clean volumes are in each family at the severity of no change.
        metric: name of the metric.
        value: its value over the tested cases.
        low: lower 95 % limit over the tested cases.
        high: upper limit.
        change: value minus that of the same model on the clean volumes.
        change_low: lower limit of the change.
        change_high: upper limit of the change.
        n_test: number of tested cases.
        n_subjects: number of their subjects, which limits are over.
    """

    task: str
    encoder: str
    model: str
    seed: int
    family: str
    severity: float
    metric: str
    value: float
    low: float
    high: float
    change: float
    change_low: float
    change_high: float
    n_test: int
    n_subjects: int


def results_table(results: Sequence[Result]) -> str:
    """Format one line per model, metric and ratio; p-values are not averaged, so not shown.

    A line has the mean over seeds, the lowest and highest seed, and the mean limits: `none` where
    no resample changes the value. A note says if there are few subjects.
    """
    groups: dict[tuple[str, str, float], list[Result]] = {}
    for result in results:
        if result.metric != LOGRANK:
            key = (result.model, result.metric, result.ratio)
            groups.setdefault(key, []).append(result)
    table = markdown_table(COLUMNS, [_row(group) for group in groups.values()])
    notes = [f"Leakage allowed: {text}" for text in sorted({r.leakage for r in results} - {""})]
    if {STUDENT, FEW_STRATIFIED} & {result.interval for result in results}:
        notes.insert(0, FEW_CASES)
    return "\n".join([table, *(f"\n{note}" for note in notes)])


def few_subjects_note(subjects: Iterable[int]) -> str:
    """Return the note below a table if limits come from few subjects; else nothing."""
    return f"\n\n{FEW_CASES}" if min(subjects, default=FEWEST_FOR_BCA) < FEWEST_FOR_BCA else ""


def _row(group: Sequence[Result]) -> list[object]:
    first = group[0]
    values = np.array([result.value for result in group])
    low = np.mean([result.low for result in group])
    high = np.mean([result.high for result in group])
    has_limits = any(result.interval != NO_SPREAD for result in group)
    return [
        first.model,
        first.metric,
        f"{first.ratio:g}",
        first.n_train,
        first.n_test,
        f"{values.mean():.3g}",
        f"{values.min():.3g}",
        f"{values.max():.3g}",
        f"{low:.3g} to {high:.3g}" if has_limits else "none",
    ]
