"""The data of a task: cases with a target and features."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from nnunet_fm.data.subject_ids import SubjectNames
from nnunet_fm.data.subject_table import Row
from nnunet_fm.data.table_rows import name_in_dataset
from nnunet_fm.features import FeatureCache, FeatureRecipe, Table, read_table
from nnunet_fm.features.leakage import all_overlaps, raise_or_describe
from nnunet_fm.features.sources import MEAN, Encoders
from nnunet_fm.heads.fitting import Fitter, HeadFitter, TrainingCases
from nnunet_fm.heads.metrics import TrueTargets
from nnunet_fm.heads.models import Model
from nnunet_fm.heads.models.base import Inputs
from nnunet_fm.heads.targets import Targets, read_targets
from nnunet_fm.heads.task import Task, read_task, task_name
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import counted

MODALITY = "modality"  # column of a case that is one volume


@dataclass(frozen=True)
class TaskData:
    """A task with its cases.

    Attributes:
        name: name of the task.
        encoder: name of the encoder and start of the recipe's identity.
        task: the task.
        x: features, one row per case; for fine-tuning, the keys of the volumes.
        targets: targets of the cases.
        names: `SUBJECT` or `SUBJECT/SESSION`, with `:MODALITY` appended if a case is a volume.
        subjects: subject of each case; two spellings of one id, as `subject_ids` knows them, and
            two scans of a known collection (`OAS1_0001_MR2`) are one subject.
        splits: `train`, `test`, `val`, or empty, for each case.
        incomplete: number of rows with a target that are skipped because a volume is not in the
            table.
        leakage: description of leakage that was allowed; empty if there is none.
        fitter: of its models.
        encoders: name of the encoder of each modality, if they differ.

    Raises:
        ValueError: other numbers of inputs and targets.
    """

    name: str
    encoder: str
    task: Task
    x: Inputs
    targets: Targets
    names: list[str]
    subjects: list[str]
    splits: list[str]
    incomplete: int = 0
    leakage: str = ""
    fitter: Fitter = HeadFitter()
    encoders: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.x) != len(self.names):
            raise ValueError(f"{len(self.x)} inputs and {len(self.names)} cases")

    def true_targets(
        self, cases: Integer[np.ndarray, " n"], fold: Integer[np.ndarray, " n"]
    ) -> TrueTargets:
        """Return the targets of some cases; `fold` says whose model predicted each."""
        number = {subject: n for n, subject in enumerate(dict.fromkeys(self.subjects))}
        subjects = np.array([number[self.subjects[case]] for case in cases])
        return TrueTargets(
            self.task.kind, self.targets.values[cases], self.targets.events[cases], subjects, fold
        )

    @property
    def chooses_threshold(self) -> bool:
        """Whether Youden's threshold is chosen among the training cases."""
        return self.task.youden_folds > 0 and len(self.targets.classes) == 2

    def training_cases(self, cases: Integer[np.ndarray, " n"]) -> TrainingCases:
        """Return what models are fitted on."""
        subjects = [self.subjects[case] for case in cases]
        return TrainingCases(self.task, self.x[cases], self.targets.of(cases), subjects)

    def fit(self, name: str, cases: Integer[np.ndarray, " n"], seed: int) -> Model:
        """Fit a model on some cases, see `Fitter`."""
        return self.fitter.fit(name, self.training_cases(cases), seed)

    def identity(self) -> str:
        """Return the SHA-256 of everything that results depend on."""
        return self._digest([list(self.targets.classes)] if self.targets.classes else [])

    def former_identity(self) -> str:
        """Return the identity of version 0.1, which did not hold the names of the classes."""
        return self._digest([])

    def _digest(self, more: list[list[str]]) -> str:
        unchanged = set(self.task.no_identity)
        if self.task.fusion == MEAN:  # as in results from before there was a choice
            unchanged.add("fusion")
        digest = hashlib.sha256(self.task.model_dump_json(exclude=unchanged).encode())
        for part in (self.x, self.targets.values, self.targets.events):
            digest.update(np.ascontiguousarray(part).tobytes())
        parts = [self.names, self.subjects, self.splits, self.leakage, *more]
        digest.update(json.dumps(parts).encode())
        return digest.hexdigest()

    def summary(self) -> str:
        """Summarise the numbers of cases, of each class, and of unused cases, in one line."""
        cases = counted(len(self.names), "case")
        subjects = counted(len(set(self.subjects)), "subject")
        target = "target or event status" if self.task.event else "target"
        counts = Counter(self.targets.values.tolist())
        parts = [
            f"{cases} of {subjects}",
            f"{self.targets.left_out} without a {target}, {self.incomplete} without a volume",
        ]
        classes = [f"{name} {counts[n]}" for n, name in enumerate(self.targets.classes)]
        if classes:
            parts.append(", ".join(classes))
        unused = sum(split not in ("train", "test") for split in self.splits)
        if unused and "test" in self.splits:
            parts.append(f"{counted(unused, 'case')} neither in train nor in test, unused")
        return "; ".join(parts)


@dataclass(frozen=True)
class TaskInputs:
    """A task with its table of subjects and feature cache.

    Attributes:
        name: name of the task, under which results are written.
        task: the task.
        table: table of subjects that was given to `features extract`.
        cache: cache with the features of the table's volumes.
        leakage: description of leakage that was allowed; empty if there is none.
    """

    name: str
    task: Task
    table: Table
    cache: FeatureCache
    leakage: str = ""

    def collect(self, encoder: Encoders = None) -> TaskData:
        """Match targets with the cached features of one encoder, or of one for each modality.

        Args:
            encoder: a recipe; or the encoder's name or hash, if the cache holds several. For
                `fusion: concat` also one of these for each modality.

        Raises:
            FileNotFoundError: features are not in the cache.
            ValueError: no case is left, or see `read_targets`.
        """
        cases = select_cases(self.task, self.table)
        columns = self.table.select_modalities(self.task.modalities)
        by_visit = self.task.unit == "visit"
        fusion = self.task.fusion if by_visit else MEAN  # another case has one volume
        sources = self.cache.sources(columns, encoder, self.task.layer, fusion)
        visits = [source.recipe.name for source in sources if source.recipe.channels]
        if visits and not by_visit:
            raise InputError(
                f"unit={self.task.unit}, and {visits[0]} has one vector for all volumes of a "
                "visit; allowed: unit=visit, or features of single volumes (features extract "
                "without --together)"
            )
        _, x = self.cache.vectors(replace(self.table, rows=cases.rows), sources, fusion)
        labels = {name: encoder_label(s.recipe) for s in sources for name in s.columns}
        return self.describe(cases, x, labels)

    def describe(self, cases: "TaskCases", x: Inputs, encoders: Mapping[str, str]) -> TaskData:
        """Return the data of a task.

        Args:
            cases: of the task.
            x: inputs of the cases.
            encoders: name of the encoder of each modality, see `encoder_label`.
        """
        labels = list(encoders.values())
        return TaskData(
            name=self.name,
            encoder=labels[0] if len(set(labels)) == 1 else "+".join(labels),
            task=self.task,
            x=x,
            targets=cases.targets,
            names=[_case_name(self.task, row) for row in cases.rows],
            subjects=_one_spelling_each(cases.rows),
            splits=[row.split for row in cases.rows],
            incomplete=cases.incomplete,
            leakage=self.leakage,
            encoders=dict(encoders) if len(set(labels)) > 1 else {},
        )


def encoder_label(recipe: FeatureRecipe) -> str:
    """Return the name of an encoder and the start of its recipe's identity."""
    return f"{recipe.name}-{recipe.identity()[:8]}"


def open_task(
    task: str | Path,
    table: str | Path,
    cache: str | Path,
    overrides: Sequence[str] = (),
    pretraining_manifest: Path | None = None,
    allow_leakage: bool = False,
    allow_no_match: bool = False,
    prefer: Sequence[str] = (),
    kind: type[Task] = Task,
) -> TaskInputs:
    """Read a task, its table and its cache, and check for leakage.

    Args:
        task: name of a shipped task, or path of a YAML file.
        table: table of subjects that was given to `features extract`.
        cache: folder of the feature cache.
        overrides: changed keys of the task, e.g. `target=sex`.
        pretraining_manifest: subjects that the encoder was pretrained on; see
            `nnunet_fm.features.leakage`.
        allow_leakage: continue despite leakage, and record it in every result.
        allow_no_match: accept a manifest whose ids are written in another form than the table's.
        prefer: as given to the extraction, see `read_table`.
        kind: class of the task; `FineTuneTask` for `finetune`.

    Raises:
        FileNotFoundError: the task, the table or the manifest does not exist.
        ValueError: a test subject was seen before, and leakage is not allowed; or see `read_task`.
    """
    settings = read_task(task, overrides, kind)
    subjects = read_table(Path(table), prefer=prefer)
    features = FeatureCache(cache)
    overlaps = all_overlaps(
        subjects, pretraining_manifest, features.hashes, allow_no_match=allow_no_match
    )
    leakage = raise_or_describe(overlaps, allow_leakage)
    return TaskInputs(task_name(task, settings, overrides), settings, subjects, features, leakage)


@dataclass(frozen=True)
class TaskCases:
    """The rows of a table that have a target and volumes.

    Attributes:
        rows: one per case.
        targets: of these rows.
        incomplete: number of rows with a target that are skipped because a volume is missing.
    """

    rows: list[Row]
    targets: Targets
    incomplete: int


def select_cases(task: Task, table: Table) -> TaskCases:
    """Select the rows that have a target and volumes.

    Raises:
        ValueError: no case is left, or see `read_targets`.
    """
    modalities = table.select_modalities(task.modalities)
    all_rows = case_table(task, table).rows
    targets = read_targets(task, all_rows)
    rows = [all_rows[n] for n in targets.kept]
    required = modalities if task.complete and task.unit == "visit" else ()
    usable = [n for n, row in enumerate(rows) if _has_volumes(row, modalities, required)]
    if not usable:
        remedy = (
            "fewer modalities=[...], or fusion=mean" if task.fusion != MEAN else "complete=false"
        )
        raise InputError(
            f"no row of {table.file} has a target and all volumes of {', '.join(modalities)}; "
            f"try {remedy}"
        )
    cases = [rows[n] for n in usable]
    return TaskCases(cases, targets.of(np.array(usable, int)), len(rows) - len(cases))


def case_table(task: Task, table: Table) -> Table:
    """Return a table with one row per case: one per visit, or one per volume."""
    if task.unit == "visit":
        return table
    rows = []
    for row in table.rows:
        for modality in table.select_modalities(task.modalities):
            if modality in row.volumes:
                volumes = {modality: row.volumes[modality]}
                values = {**row.values, MODALITY: modality}
                rows.append(replace(row, volumes=volumes, values=values))
    return replace(table, rows=rows)


def _one_spelling_each(rows: Sequence[Row]) -> list[str]:
    """Return the subject of each row, spelled as in its first row: `s7`, not `S07` beside it."""
    names = SubjectNames()
    subjects = []
    for row in rows:
        name = name_in_dataset(row.subject, row.values)
        spelling = names.find(name)
        if spelling is None:
            spelling = row.subject
            names.add(name, spelling)
        subjects.append(spelling)
    return subjects


def _has_volumes(row: Row, modalities: Sequence[str], required: Sequence[str]) -> bool:
    has_required = all(modality in row.volumes for modality in required)
    return has_required and any(modality in row.volumes for modality in modalities)


def _case_name(task: Task, row: Row) -> str:
    return row.name if task.unit == "visit" else f"{row.name}:{row.values[MODALITY]}"
