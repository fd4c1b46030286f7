"""Tasks: what is predicted from features, and how, as strict data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from nnunet_fm.heads.mlp import Training
from nnunet_fm.settings import Part, read_settings, shipped_settings

TASKS = Path(__file__).parent / "tasks"
Ratio = Annotated[float, Field(gt=0, le=1)]


class Task(Part):
    """A task over a table.

    Attributes:
        kind: `classification`, `regression` or `survival`.
        target: column of the label, the number, or the time.
        event: survival: column that is 1 where the time ends with an event, 0 where it is censored.
        classes: classification: class number of each label, null for labels that are left out; by the sorted labels
            if not given.
        modalities: columns of volumes whose features are averaged; all of the table's if not given.
        layer: block whose features are read; the last one kept if not given.
        loss: regression: `mse` on the standardised target, or `stroke_days` (equation 9, on log(1 + target)).
        ratios: shares of the training subjects.
        seeds: subsets and initialisations for each ratio.
        folds: of the cross-validation, for tables without a column `split`.
        head: how the head is trained.
    """

    kind: Literal["classification", "regression", "survival"]
    target: str
    event: str | None = None
    classes: dict[str, int | None] | None = None
    modalities: tuple[str, ...] | None = None
    layer: int | None = None
    loss: Literal["mse", "stroke_days"] = "mse"
    ratios: tuple[Ratio, ...] = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    seeds: Annotated[int, Field(gt=0)] = 5
    folds: Annotated[int, Field(ge=2)] = 5
    head: Training = Training()

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "Task":
        if (self.kind == "survival") != (self.event is not None):
            raise ValueError("event names the column of events: needed for survival, and for nothing else")
        if self.classes is not None and self.kind != "classification":
            raise ValueError("classes is for classification")
        if self.kind == "survival" and self.head.batch_size is not None:
            raise ValueError("head.batch_size must be null for survival: the Cox loss compares all subjects")
        return self


def shipped_tasks() -> dict[str, Path]:
    """Name and file of each shipped task."""
    return shipped_settings(TASKS)


def read_task(given: str | Path, overrides: Sequence[str] = ()) -> Task:
    """Read a task and change single keys of it, see `read_settings`.

    Raises:
        FileNotFoundError, ValueError: unknown task or key (close matches are named), or a value that is not allowed.
    """
    return read_settings(Task, given, TASKS, overrides)
