"""Task settings: what is predicted from features, and how."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, field_validator, model_validator

from nnunet_fm.internal.config import (
    Count,
    Fraction,
    Part,
    Positive,
    Text,
    parse_settings,
    read_content,
    shipped_settings,
)
from nnunet_fm.internal.errors import InputError

FINETUNE = "finetune"  # key of the settings of `heads finetune`
TASKS = Path(__file__).parent / "tasks"
PAPER_NEIGHBOURS = (1, 3, 5, 10, 20, 50)
# the released code trains 8 epochs; for tasks without a key `paper`
PAPER: dict[str, Any] = {"head": {"epochs": 8, "standardise": False}}
ModelName = Literal["mlp", "linear", "knn", "trivial"]
EVENT_RULE = "event names the column of events: needed for survival, allowed with a threshold"


class HeadTraining(Part):
    """How a head is trained.

    Attributes:
        standardise: standardise the features on the training cases first. Not in the paper. Without
            it a head of few subjects (32 of IXI) is worse than their mean after 1000 steps; with it
            the number of steps hardly matters.
        steps: optimiser steps, the same for every number of subjects. With fixed epochs a small
            subset also gets fewer steps, which confounds label efficiency with too little training.
        epochs: epochs instead of steps, as in the paper (which does not give the number).
        batch_size: cases per step; null takes all of them (the Cox loss compares all subjects).
        hidden: width of the hidden layer; the paper gives none.
        dropout: probability of dropout between the two linear layers.
        optimiser: `adam`, or `adamw` (decoupled weight decay).
        learning_rate: learning rate of the optimiser.
        weight_decay: weight decay of the optimiser.
    """

    standardise: bool = True
    steps: Positive = 500
    epochs: Positive | None = None
    batch_size: Positive | None = 32
    hidden: Positive = 256
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    optimiser: Literal["adam", "adamw"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5

    def steps_for(self, count: int) -> int:
        """Return the number of steps for `count` training cases."""
        if self.epochs is None:
            return self.steps
        return self.epochs * (count // min(self.batch_size or count, count))


class Task(Part):
    """A task on a table of subjects.

    Attributes:
        kind: `classification`, `regression` or `survival`.
        target: column of the label, the number or the time (in any unit, which is that of
            `threshold` and `exclude_censored_before`, too); `modality` where `unit` is `volume`.
        event: column that is 1 or true where the time ends with an event, 0 or false where it is
            censored; for survival, and for a `threshold` on a time.
        classes: classification: class number of each label, null for a label whose cases are
            skipped; by default the sorted labels are numbered.
        threshold: classification of a number: up to the threshold, or above it. Cases censored up
            to the threshold (see `event`) belong to neither class and are skipped.
        unit: `visit`: each row of the table is a case, and the features of its volumes are joined,
            see `fusion`. `volume`: each volume is a case.
        modalities: columns of volumes to use (default: all of the table).
        complete: skip cases without one of the modalities; otherwise average those that exist (or
            use the vector of those that went through the encoder together).
        fusion: how the features of the volumes of a visit are joined: their `mean` (late fusion),
            or `concat`, one behind the other in the order of `modalities`, of which a case then
            needs all (PRISM, figure 3 a).
        layer: block whose features are used (default: the last one in the cache).
        loss: regression: `mse` on the standardised target, or `stroke_days` (equation 9, on log(1 +
            target)).
        standardise_target: regression with `mse`: standardise the target on the training cases.
        exclude_censored_before: survival: skip subjects censored before this time (the paper: 365
            days). This selects by the outcome; null by default.
        ratios: shares of the training subjects.
        seeds: number of subsets and initialisations for each ratio.
        folds: folds of the cross-validation, for tables without a column `split`.
        models: any of `mlp` (the paper's head), `linear`, `knn` (classification), `trivial`.
        neighbours: numbers of neighbours of kNN; numbers above that of the training cases are
            skipped.
        youden_folds: binary classification: report sensitivity and specificity at the threshold of
            Youden's index, chosen by cross-validation with this many folds among the training
            cases; 0: choose no threshold.
        head: how the head is trained.
        protocol: `paper` applies the keys under `paper`.
        paper: keys that differ in the paper's protocol, e.g. a fixed number of epochs.
    """

    no_identity: ClassVar[frozenset[str]] = frozenset({"paper"})  # keys that change no result

    kind: Literal["classification", "regression", "survival"]
    target: Text
    event: Text | None = None
    classes: dict[str, int | None] | None = None
    threshold: float | None = None
    unit: Literal["visit", "volume"] = "visit"
    modalities: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    complete: bool = True
    fusion: Literal["mean", "concat"] = "mean"
    layer: Count | None = None
    loss: Literal["mse", "stroke_days"] = "mse"
    standardise_target: bool = True
    exclude_censored_before: Annotated[float, Field(ge=0)] | None = None
    ratios: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    seeds: Positive = 5
    folds: Annotated[int, Field(ge=2, le=1000)] = 5
    models: Annotated[tuple[ModelName, ...], Field(min_length=1)] = get_args(ModelName)
    neighbours: Annotated[tuple[Positive, ...], Field(min_length=1)] = PAPER_NEIGHBOURS
    youden_folds: Annotated[int, Field(ge=0, le=1000)] = 0
    head: HeadTraining = HeadTraining()
    protocol: Literal["default", "paper"] = "default"
    paper: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _apply_paper_protocol(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.get("protocol") == "paper":
            return _merge(content, content.get("paper", {}) or PAPER)
        return content

    @field_validator("classes", mode="before")
    @classmethod
    def _check_labels(cls, classes: Any) -> Any:
        """Refuse labels that YAML reads as numbers or as true and false."""
        for label in classes if isinstance(classes, dict) else ():
            if not isinstance(label, str):
                raise InputError(
                    f"the label {label} is not text; put labels in quotes as the table spells "
                    """them, e.g. classes='{"0": 0, "0.5": 1}'"""
                )
        return classes

    @model_validator(mode="after")
    def _check_kind(self) -> "Task":
        if self.kind == "survival":
            self._check_survival()
        elif self.event and self.threshold is None:
            raise InputError(EVENT_RULE)
        elif self.exclude_censored_before is not None:
            raise InputError(
                "exclude_censored_before is for survival; a threshold skips such cases anyway"
            )
        for key in ("classes", "threshold", "youden_folds"):
            if getattr(self, key) and self.kind != "classification":
                raise InputError(f"{key} is for classification")
        if self.classes is not None and self.threshold is not None:
            raise InputError("classes and threshold both define the classes; give one")
        if self.fusion == "concat" and (self.unit == "volume" or not self.complete):
            raise InputError(
                f"fusion=concat with unit={self.unit}, complete={str(self.complete).lower()}; "
                "allowed: unit=visit, complete=true, since every case needs as many features"
            )
        if self.youden_folds == 1:
            raise InputError("youden_folds is 1; allowed: 0 for no threshold, or 2 and more")
        return self

    def _check_survival(self) -> None:
        if not self.event:
            raise InputError(EVENT_RULE)
        if self.head.batch_size is not None:
            raise InputError(
                "head.batch_size must be null for survival: the Cox loss compares all subjects"
            )


def _merge(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return `content` with some keys changed, nested dictionaries key by key."""
    merged = {**content, **changes}
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(content.get(key), dict):
            merged[key] = _merge(content[key], value)
    return merged


def shipped_tasks() -> dict[str, Path]:
    """Return the file of each shipped task by its name."""
    return shipped_settings(TASKS)


def task_summaries() -> list[tuple[str, str, str]]:
    """List name, kind and first comment of each shipped task."""
    summaries: list[tuple[str, str, str]] = []
    for name, path in shipped_tasks().items():
        comment = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        summaries.append((name, read_task(name).kind, comment))
    return summaries


def read_task(source: str | Path, overrides: Sequence[str] = (), kind: type[Task] = Task) -> Task:
    """Read a task and change single keys.

    Args:
        source: name of a shipped task, or path of a YAML file.
        overrides: `key=value` or `part.key=value`, e.g. `head.steps=100`.
        kind: class of the task. A file's key `finetune` is for `FineTuneTask` alone.

    Raises:
        FileNotFoundError: unknown task; close matches are named.
        ValueError: unknown key (close matches are named), or a value that is not allowed.
    """
    content, name = read_content("task", source, TASKS, overrides)
    if kind is Task:
        own = [key for key in overrides if key.startswith(FINETUNE)]
        if own:
            raise InputError(f"{own[0]} is for `heads finetune`; remove it from this command")
        content.pop(FINETUNE, None)
    return parse_settings(kind, content, name, "task")


def task_name(source: str | Path, task: Task, overrides: Sequence[str] = ()) -> str:
    """Name the results of a task: the file's name, and the target if an override changes it.

    Example:
        >>> task = read_task("brain_age", ["target=sex"])
        >>> task_name("brain_age", task, ["target=sex"])
        'brain_age_sex'
    """
    name = Path(source).stem
    return f"{name}_{task.target}" if f"target={task.target}" in overrides else name
