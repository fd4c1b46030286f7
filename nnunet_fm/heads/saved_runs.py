"""Files of a run of `nnunet-fm heads run`: what each is called, and how they are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from nnunet_fm.heads.metrics import Output, TrueTargets
from nnunet_fm.heads.results import Result
from nnunet_fm.heads.task_data import TaskData
from nnunet_fm.internal.csv_text import read_rows
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.files import walk_files
from nnunet_fm.internal.json_files import read_object
from nnunet_fm.internal.messages import some
from nnunet_fm.internal.path_parts import path_below
from nnunet_fm.internal.result_sets import check_finished

PREDICTIONS = "predictions"
RESULTS = "results"
ABOUT = "run.json"
RERUN = "rerun the command that wrote it"
# types of the columns of results.csv that are not text
COLUMN_TYPES = {
    "ratio": float,
    "seed": int,
    "value": float,
    "low": float,
    "high": float,
    "n_train": int,
    "n_test": int,
}
Line = dict[str, str]
KEYS = ("task", "encoder", "kind", "classes", "settings")  # that are read from run.json
# columns of the predictions beside those of the classes
CASE_COLUMNS = ("case", "subject", "model", "fold", "truth", "event", "high_risk")


@dataclass(frozen=True)
class Predictions:
    """Predictions of one model at one ratio and seed.

    Attributes:
        cases: names of the tested cases, in the order of the rows.
        truth: targets of these cases.
        output: probabilities, values or risks.
        high: survival: whether the risk is above the training cases' median.
    """

    cases: tuple[str, ...]
    truth: TrueTargets
    output: Output
    high: Bool[np.ndarray, " n"]


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes:
        folder: folder of the run.
        about: content of its `run.json`: task, encoder, kind, classes, protocol and more.
        results: its results.
    """

    folder: Path
    about: dict[str, Any]
    results: list[Result]

    def predictions(self, ratio: float, seed: int) -> dict[str, Predictions]:
        """Read the predictions of each model at one ratio and seed.

        Raises:
            FileNotFoundError: this ratio and seed are not finished.
        """
        path = self.folder / f"{PREDICTIONS}_{setting_name(ratio, seed)}.csv"
        if not path.is_file():
            raise MissingFileError(
                f"{path} does not exist; rerun the command that wrote it, to finish the run"
            )
        by_model: dict[str, list[Line]] = {}
        columns, lines = read_rows(path, RERUN)
        lacking = {"model", *class_columns(self.about["classes"])} - set(columns)
        if lacking:  # of version 0.1, which wrote a class called `case` over the cases
            raise InputError(
                f"{path} has no column {some(sorted(lacking))}; remove {self.folder} and rerun the "
                "command"
            )
        for line in lines:
            by_model.setdefault(line["model"], []).append(line)
        try:
            return {model: self._parse(lines) for model, lines in by_model.items()}
        except (ValueError, KeyError) as error:
            raise InputError(f"{path} is damaged ({error}); {RERUN}") from None

    def _parse(self, lines: list[Line]) -> Predictions:
        classes = self.about["classes"]
        if classes:
            columns = class_columns(classes)
            output = np.stack([_numbers(lines, column) for column in columns], axis=1)
        else:
            output = _numbers(lines, "prediction")
        truth = TrueTargets(
            self.about["kind"],
            _numbers(lines, "truth"),
            _numbers(lines, "event", default="1") == 1,
            np.unique([line["subject"] for line in lines], return_inverse=True)[1],
            _numbers(lines, "fold").astype(int),
        )
        cases = tuple(line["case"] for line in lines)
        return Predictions(cases, truth, output, _numbers(lines, "high_risk", default="0") == 1)


def class_columns(classes: Sequence[str]) -> list[str]:
    """Name the columns of the probabilities like the classes, `class case` for a class `case`."""
    return [f"class {name}" if name in CASE_COLUMNS else name for name in classes]


def run_folder(out: Path, data: TaskData) -> Path:
    """Return the folder of a run: its own, or that of version 0.1 with the same classes."""
    parent = path_below(path_below(out, data.name), data.encoder)
    folder = parent / data.identity()[:12]
    former = parent / data.former_identity()[:12]
    if folder.is_dir() or not (former / ABOUT).is_file():
        return folder
    classes = read_object(former / ABOUT).get("classes")
    return former if classes == list(data.targets.classes) else folder


def setting_name(ratio: float, seed: int) -> str:
    """Name the files of one ratio and seed."""
    return f"ratio_{ratio:g}_seed_{seed}"


def read_run(folder: Path) -> FinishedRun:
    """Read a run folder, or the only run below a folder.

    Raises:
        FileNotFoundError: there is no finished run.
        ValueError: there are several runs below the folder, or the run is incomplete.
    """
    tables = [path for path in walk_files(folder) if path.name == f"{RESULTS}.csv"]
    runs = sorted(path.parent for path in tables if (path.parent / ABOUT).is_file())
    if len(runs) > 1:
        raise InputError(
            f"{folder} holds {len(runs)} runs; name one: {some([str(run) for run in runs])}"
        )
    if not runs:
        raise MissingFileError(
            f"{folder} holds no finished run of `nnunet-fm heads run`; give the folder it wrote"
        )
    check_finished(runs[0], RESULTS)
    about = read_object(runs[0] / ABOUT, RERUN)
    table = runs[0] / f"{RESULTS}.csv"
    results = [_result(line, table) for line in read_rows(table, RERUN)[1]]
    lacking = [key for key in KEYS if key not in about]
    if lacking or not results:
        raise InputError(f"{runs[0]} is damaged: no {some(lacking) or 'results'}; {RERUN}")
    return FinishedRun(runs[0], about, results)


def _result(line: Line, table: Path) -> Result:
    try:
        values: dict[str, Any] = {
            column: COLUMN_TYPES.get(column, str)(text) for column, text in line.items()
        }
        return Result(**values)
    except (ValueError, TypeError) as error:
        raise InputError(f"{table} is damaged ({error}); {RERUN}") from None


def _numbers(lines: list[Line], column: str, default: str | None = None) -> Float[np.ndarray, " n"]:
    """Convert a column; `default` stands for a column that the kind of task does not have."""
    if default is None:
        return np.array([float(line[column]) for line in lines])
    return np.array([float(line.get(column, default)) for line in lines])
