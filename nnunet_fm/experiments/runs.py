"""The runs of a sweep, and how far each has come according to nnU-Net's own files."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from nnunet_fm.internal.atomic_files import write_if_changed
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.json_files import read_list
from nnunet_fm.internal.path_parts import check_path_part
from nnunet_fm.nnunet.datasets import dataset_id
from nnunet_fm.nnunet.file_names import FINAL_CHECKPOINT, LATEST_CHECKPOINT, SUMMARY_JSON
from nnunet_fm.nnunet.splits import ALL, Fold
from nnunet_fm.nnunet.training_seed import seed_suffix

RUNS = "runs.json"  # file of a sweep


def ratio_text(ratio: float, train_cases: int) -> str:
    """Write a ratio and the number of training cases that it is, where that is known.

    >>> ratio_text(0.1, 3), ratio_text(0.1, 0)
    ('0.1 (3)', '0.1')
    """
    return f"{ratio:g} ({train_cases})" if train_cases else f"{ratio:g}"


class State(str, Enum):
    """How far a run has come.

    `NEW`, `INTERRUPTED` and `FINISHED` follow from nnU-Net's files alone; the others are known to
    the sweep that trains the run.
    """

    NEW = "new"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    STOPPED = "stopped"  # together with the sweep
    FAILED = "failed"
    FINISHED = "finished"


@dataclass(frozen=True)
class Run:
    """One training of nnU-Net.

    Attributes:
        dataset: full name, e.g. `Dataset008_BraTS21`.
        encoder: name in the sweep.
        ratio: share of the training cases, above 0 to 1.
        seed: seed of the subset.
        fold: fold of the cross-validation, or `all`.
        trainer: nnU-Net's `-tr`.
        plans: nnU-Net's `-p`.
        configuration: nnU-Net's configuration, e.g. `2d_fm256`.
        folder: `fold_N` in nnUNet_results.
        train_cases: number of cases that it is trained on; 0 if unknown.
        training_seed: seed of the training; None if it is not seeded.
    """

    dataset: str
    encoder: str
    ratio: float
    seed: int
    fold: Fold
    trainer: str
    plans: str
    configuration: str
    folder: Path
    train_cases: int = 0
    training_seed: int | None = None

    @property
    def name(self) -> str:
        """Short name, unique within a sweep."""
        number = dataset_id(self.dataset)
        fold = self.fold if self.fold == ALL else f"f{self.fold}"
        seeds = f"s{self.seed}{seed_suffix(self.training_seed)}"
        return f"{number:03d}_{self.encoder}_r{self.ratio:g}_{seeds}_{fold}"

    def state(self) -> State:
        """Look at the files that nnU-Net writes: new, interrupted or finished."""
        has_final = (self.folder / FINAL_CHECKPOINT).is_file()
        if has_final and (self.folder / SUMMARY_JSON).is_file():
            return State.FINISHED
        if has_final or (self.folder / LATEST_CHECKPOINT).is_file():
            return State.INTERRUPTED
        return State.NEW

    def train_command(self) -> list[str]:
        """Return nnU-Net's training command, without a device."""
        number = str(dataset_id(self.dataset))
        model = ["-tr", self.trainer, "-p", self.plans]
        return ["nnUNetv2_train", number, self.configuration, str(self.fold), *model]

    def command(self, device: str) -> list[str]:
        """Return the command that trains the run, or resumes it if it was interrupted."""
        argv = [*self.train_command(), "-device", device]
        return [*argv, "--c"] if self.state() is State.INTERRUPTED else argv


def write_runs(runs: Sequence[Run], folder: Path) -> None:
    """Write runs.json for `sweep status` and `report`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{**asdict(run), "folder": str(run.folder)} for run in runs]
    write_if_changed(folder / RUNS, json.dumps(rows, indent=1))


def _run_of(row: dict[str, Any], path: Path) -> Run:
    """Build a run from a line of runs.json, whose texts become parts of paths."""
    for name in ("dataset", "encoder", "trainer", "plans", "configuration"):
        check_path_part(row[name], f"{name} in {path}")
    numbers = {"ratio": float(row["ratio"]), "seed": int(row["seed"])}
    run = Run(**{**row, **numbers, "folder": Path(row["folder"])})
    if not isinstance(run.training_seed, int | None):
        raise InputError(f"training_seed {run.training_seed!r} in {path}; allowed: a number")
    if run.fold != ALL and not isinstance(run.fold, int):
        raise InputError(f"fold {run.fold!r} in {path}; allowed: a number, or {ALL}")
    return run


def read_runs(folder: Path) -> list[Run]:
    """Read the runs of a sweep's folder.

    Raises:
        FileNotFoundError: the folder holds no sweep.
        ValueError: runs.json is damaged.
    """
    path = folder / RUNS
    if not path.is_file():
        raise MissingFileError(
            f"{folder} is not the folder of a sweep; type: nnunet-fm sweep CONFIG.yaml -o {folder}"
        )
    try:
        return [_run_of(row, path) for row in read_list(path)]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path} is damaged ({error}); rerun nnunet-fm sweep CONFIG.yaml -o {folder}"
        ) from None
