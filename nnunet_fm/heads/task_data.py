"""The data of a task: cases with a target and features."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Integer

from nnunet_fm.data.subject_table import Row
from nnunet_fm.features import FeatureCache, FeatureRecipe, Table
from nnunet_fm.heads.metrics import TrueTargets
from nnunet_fm.heads.targets import Targets, read_targets
from nnunet_fm.heads.task import Task
from nnunet_fm.internal.errors import InputError

MODALITY = "modality"  # column of a case that is one volume


@dataclass(frozen=True)
class Job:
    """A task with its cases.

    Attributes:
        name: of the task.
        encoder: name and beginning of the recipe's identity.
        task: what is predicted.
        x: features of each case.
        targets: of the cases.
        names: `SUBJECT`, `SUBJECT/SESSION`, and `:MODALITY` behind it where a case is a volume.
        subjects: whom each case is of.
        splits: `train`, `test`, `val`, or empty.
        incomplete: rows with a target that were left out because a volume is not in the table.
        leakage: what was found of tested subjects elsewhere and allowed; empty if nothing.
    """

    name: str
    encoder: str
    task: Task
    x: Float[np.ndarray, "n d"]
    targets: Targets
    names: list[str]
    subjects: list[str]
    splits: list[str]
    incomplete: int = 0
    leakage: str = ""

    def tested(
        self, cases: Integer[np.ndarray, " n"], fold: Integer[np.ndarray, " n"]
    ) -> TrueTargets:
        """The truth of some cases, each predicted by the model of a fold."""
        number = {subject: n for n, subject in enumerate(dict.fromkeys(self.subjects))}
        subjects = np.array([number[self.subjects[case]] for case in cases])
        return TrueTargets(
            self.task.kind, self.targets.values[cases], self.targets.events[cases], subjects, fold
        )

    def identity(self) -> str:
        """SHA-256 of everything that results depend on."""
        digest = hashlib.sha256(self.task.model_dump_json(exclude={"paper"}).encode())
        for part in (self.x, self.targets.values, self.targets.events):
            digest.update(np.ascontiguousarray(part).tobytes())
        digest.update(json.dumps([self.names, self.subjects, self.splits, self.leakage]).encode())
        return digest.hexdigest()


def cases(task: Task, table: Table) -> Table:
    """The table with a row per case: as it is, or a row per volume."""
    if task.unit == "visit":
        return table
    rows = [
        replace(row, volumes={m: row.volumes[m]}, values={**row.values, MODALITY: m})
        for row in table.rows
        for m in table.select_modalities(task.modalities)
        if m in row.volumes
    ]
    return replace(table, rows=rows)


def make_job(
    name: str,
    task: Task,
    table: Table,
    cache: FeatureCache,
    encoder: str | FeatureRecipe | None = None,
    leakage: str = "",
) -> Job:
    """Bring features and targets together.

    Args:
        name: of the task.
        task: what is predicted, and from which volumes.
        table: as it was given to the extraction.
        cache: with the features of the table's volumes.
        encoder: a recipe, or which one, where the cache holds several.
        leakage: see `Job`.

    Raises:
        FileNotFoundError, ValueError: features that are not in the cache, no case left, or see
        `read_targets`.
    """
    asked = table.select_modalities(task.modalities)
    all_cases = cases(task, table)
    targets = read_targets(task, all_cases.rows)
    needed = asked if task.complete and task.unit == "visit" else ()
    rows = [all_cases.rows[n] for n in targets.kept]
    whole = np.array([n for n, row in enumerate(rows) if _is_there(row, asked, needed)], int)
    if not len(whole):
        raise InputError(
            f"no row of {table.file} has a target and all volumes of {', '.join(asked)}; try complete=false"
        )
    found = [rows[n] for n in whole]
    recipe = encoder if isinstance(encoder, FeatureRecipe) else cache.recipe(encoder)
    x = _features(cache, replace(all_cases, rows=found), task, recipe)
    return Job(
        name,
        f"{recipe.name}-{recipe.identity()[:8]}",
        task,
        x,
        targets.of(whole),
        [_case_name(task, row) for row in found],
        [r.subject for r in found],
        [r.split for r in found],
        len(rows) - len(found),
        leakage,
    )


def _is_there(row: Row, asked: Sequence[str], needed: Sequence[str]) -> bool:
    return all(m in row.volumes for m in needed) and any(m in row.volumes for m in asked)


def _features(
    cache: FeatureCache, table: Table, task: Task, recipe: FeatureRecipe
) -> Float[np.ndarray, "n d"]:
    if task.unit == "visit":
        return cache.matrix(table, task.layer, recipe, task.modalities)[1]
    return cache.matrix(table, task.layer, recipe)[1]  # a row has one volume


def _case_name(task: Task, row: Row) -> str:
    return row.name if task.unit == "visit" else f"{row.name}:{row.values[MODALITY]}"
