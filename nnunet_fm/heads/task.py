"""Tasks: what is predicted from features, and how, as strict data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from nnunet_fm.heads.knn import PAPER_K
from nnunet_fm.heads.mlp import Training
from nnunet_fm.internal.config import Part, read_settings, shipped_settings
from nnunet_fm.internal.errors import InputError

TASKS = Path(__file__).parent / "tasks"
PAPER = {
    "head": {"epochs": 8, "standardise": False}
}  # 8: of the released code; for tasks that say nothing else
Ratio = Annotated[float, Field(gt=0, le=1)]


class Task(Part):
    """A task over a table.

    Attributes:
        kind: `classification`, `regression` or `survival`.
        target: column of the label, the number, or the time (days); `modality` where `unit` is
            `volume`.
        event: column that is 1 where the time ends with an event, 0 where it is censored: for
            survival, and for a `threshold` on a time.
        classes: classification: class number of each label, null for labels that are left out; by
            the sorted labels if not given.
        threshold: classification of a number into up to the threshold and above it. Who is censored
            up to the threshold (see `event`) is in neither class and left out.
        unit: `visit`: a row of the table is a case, the features of its volumes averaged (late
            fusion); `volume`: every volume is a case of its own.
        modalities: columns of volumes; all of the table's if not given.
        complete: cases without one of the modalities are left out; else those that are there are
            averaged.
        layer: block whose features are read; the last one kept if not given.
        loss: regression: `mse` on the standardised target, or `stroke_days` (equation 9, on log(1 +
            target)).
        standardise_target: regression with `mse`: on the training subjects.
        exclude_censored_before: survival: who is censored before this time is left out (the paper:
            365 days), which chooses by the outcome; null by default.
        ratios: shares of the training subjects.
        seeds: subsets and initialisations for each ratio.
        folds: of the cross-validation, for tables without a column `split`.
        models: any of `mlp` (the paper's head), `linear`, `knn` (classification), `trivial`.
        neighbours: of kNN; a number above that of the training cases is left out.
        youden_folds: binary classification: sensitivity and specificity at the threshold of
            Youden's index, chosen on predictions for the training cases by cross-validation among
            them; 0: no threshold is chosen.
        head: how the head is trained.
        protocol: `paper` applies the keys under `paper`.
        paper: keys that differ in the paper's protocol, e.g. a fixed number of epochs.
    """

    kind: Literal["classification", "regression", "survival"]
    target: str
    event: str | None = None
    classes: dict[str, int | None] | None = None
    threshold: float | None = None
    unit: Literal["visit", "volume"] = "visit"
    modalities: tuple[str, ...] | None = None
    complete: bool = True
    layer: int | None = None
    loss: Literal["mse", "stroke_days"] = "mse"
    standardise_target: bool = True
    exclude_censored_before: float | None = None
    ratios: tuple[Ratio, ...] = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    seeds: Annotated[int, Field(gt=0)] = 5
    folds: Annotated[int, Field(ge=2)] = 5
    models: tuple[Literal["mlp", "linear", "knn", "trivial"], ...] = (
        "mlp",
        "linear",
        "knn",
        "trivial",
    )
    neighbours: tuple[Annotated[int, Field(gt=0)], ...] = PAPER_K
    youden_folds: Annotated[int, Field(ge=0)] = 0
    head: Training = Training()
    protocol: Literal["default", "paper"] = "default"
    paper: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _paper_s_keys(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.get("protocol") == "paper":
            return _merged(content, content.get("paper", {}) or PAPER)
        return content

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "Task":
        survival, classification = self.kind == "survival", self.kind == "classification"
        if (survival and not self.event) or (
            self.event and not survival and self.threshold is None
        ):
            raise InputError(
                "event names the column of events: needed for survival, allowed with a threshold"
            )
        for key in ("classes", "threshold", "youden_folds"):
            if getattr(self, key) and not classification:
                raise InputError(f"{key} is for classification")
        if self.classes is not None and self.threshold is not None:
            raise InputError("classes and threshold both say what the classes are; give one")
        if survival and self.head.batch_size is not None:
            raise InputError(
                "head.batch_size must be null for survival: the Cox loss compares all subjects"
            )
        if self.exclude_censored_before is not None and not survival:
            raise InputError(
                "exclude_censored_before is for survival; a threshold leaves such cases out anyway"
            )
        if self.youden_folds == 1:
            raise InputError("youden_folds is 1; allowed: 0 for no threshold, or 2 and more")
        return self


def _merged(content: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {
        k: _merged(content[k], v)
        for k, v in over.items()
        if isinstance(v, dict) and isinstance(content.get(k), dict)
    }
    return {**content, **over, **both}


def shipped_tasks() -> dict[str, Path]:
    """Name and file of each shipped task."""
    return shipped_settings(TASKS)


def read_task(given: str | Path, overrides: Sequence[str] = ()) -> Task:
    """Read a task and change single keys of it, see `read_settings`.

    Raises:
        FileNotFoundError, ValueError: unknown task or key (close matches are named), or a value
        that is not allowed.
    """
    return read_settings(Task, given, TASKS, overrides)
