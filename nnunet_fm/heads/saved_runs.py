"""Reading finished runs: their predictions, matched over encoders."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from nnunet_fm.heads.metrics import Output, TrueTargets
from nnunet_fm.heads.results import Result
from nnunet_fm.heads.runner import ABOUT, PREDICTIONS, RESULTS
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.messages import some


@dataclass(frozen=True)
class Predictions:
    """Of one model at one ratio and seed.

    Attributes:
        cases: names, in the order of the rows.
        truth: of the cases.
        output: probabilities, values or risks.
        high: survival: above the training cases' median risk.
    """

    cases: tuple[str, ...]
    truth: TrueTargets
    output: Output
    high: Bool[np.ndarray, " n"]


@dataclass(frozen=True)
class FinishedRun:
    """A run folder of `nnunet-fm heads run`: what it is about, and its results."""

    folder: Path
    about: dict[str, Any]
    results: list[Result]

    def predictions(self, ratio: float, seed: int) -> dict[str, Predictions]:
        """By model.

        Raises:
            FileNotFoundError: this ratio and seed are not finished.
        """
        path = self.folder / f"{PREDICTIONS}_ratio_{ratio:g}_seed_{seed}.csv"
        if not path.is_file():
            raise MissingFileError(
                f"{path} does not exist; type the heads run command again to finish the run"
            )
        with path.open(newline="") as stream:
            lines = list(csv.DictReader(stream))
        models = dict.fromkeys(line["model"] for line in lines)
        return {m: self._of_model([line for line in lines if line["model"] == m]) for m in models}

    def _of_model(self, lines: list[dict[str, str]]) -> Predictions:
        def numbers(column: str, otherwise: str = "1") -> Float[np.ndarray, " n"]:
            return np.array([float(line.get(column, otherwise)) for line in lines])

        columns = self.about["classes"] or ["prediction"]
        output = np.stack([numbers(c) for c in columns], axis=1)
        subjects = np.unique([line["subject"] for line in lines], return_inverse=True)[1]
        fold = numbers("fold").astype(int)
        truth = TrueTargets(
            self.about["kind"], numbers("truth"), numbers("event") == 1, subjects, fold
        )
        return Predictions(
            tuple(line["case"] for line in lines),
            truth,
            output if self.about["classes"] else output[:, 0],
            numbers("high_risk", "0") == 1,
        )


def read_run(folder: Path) -> FinishedRun:
    """Read a run folder, or the only run below a folder.

    Raises:
        FileNotFoundError: there is no finished run.
        ValueError: there are several below the folder.
    """
    found = sorted(p.parent for p in folder.rglob(f"{RESULTS}.csv") if (p.parent / ABOUT).is_file())
    if len(found) > 1:
        raise InputError(
            f"{folder} holds {len(found)} runs; name one: {some([str(p) for p in found])}"
        )
    if not found:
        raise MissingFileError(
            f"{folder} holds no finished run of `nnunet-fm heads run`; give the folder it wrote"
        )
    about = json.loads((found[0] / ABOUT).read_text())
    with (found[0] / f"{RESULTS}.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    kinds = {
        "ratio": float,
        "seed": int,
        "value": float,
        "low": float,
        "high": float,
        "n_train": int,
        "n_test": int,
    }
    results = [Result(**{k: kinds.get(k, str)(v) for k, v in row.items()}) for row in rows]
    return FinishedRun(found[0], about, results)
