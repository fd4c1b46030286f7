"""The runs of a sweep: their plans, their folders, and how far each has come, by nnU-Net's own files."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from batchgenerators.utilities.file_and_folder_operations import load_json

from nnunet_fm.experiments.config import Arm, Sweep
from nnunet_fm.experiments.datasets import SPLITS, check_expected, write_splits
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.files import write_text
from nnunet_fm.internal.messages import some, unknown
from nnunet_fm.nnunet.commands import trainer_names
from nnunet_fm.nnunet.datasets import dataset_id, dataset_name
from nnunet_fm.nnunet.plan_options import PlanOptions
from nnunet_fm.nnunet.planning import WrittenPlans, default_trainer, write_plans
from nnunet_fm.nnunet.run_identity import differences
from nnunet_fm.nnunet.train_subset import TrainSubset

RUNS = "runs.json"
FINAL, LATEST, SUMMARY = "checkpoint_final.pth", "checkpoint_latest.pth", "validation/summary.json"


class State(Enum):
    """How far a run has come."""

    NEW = "new"
    INTERRUPTED = "interrupted"
    FINISHED = "finished"


@dataclass(frozen=True)
class Run:
    """One training of nnU-Net.

    Attributes:
        dataset: its full name.
        encoder: name in the sweep.
        ratio, seed: of the subset.
        fold: of the cross-validation.
        trainer, plans, configuration: as nnU-Net names them.
        folder: `fold_N` in nnUNet_results.
    """

    dataset: str
    encoder: str
    ratio: float
    seed: int
    fold: int
    trainer: str
    plans: str
    configuration: str
    folder: Path

    @property
    def name(self) -> str:
        """Short and unique within a sweep."""
        return f"{dataset_id(self.dataset):03d}_{self.encoder}_r{self.ratio:g}_s{self.seed}_f{self.fold}"

    def state(self) -> State:
        """By the files that nnU-Net writes."""
        if (self.folder / FINAL).is_file() and (self.folder / SUMMARY).is_file():
            return State.FINISHED
        if (self.folder / FINAL).is_file() or (self.folder / LATEST).is_file():
            return State.INTERRUPTED
        return State.NEW

    def training_words(self) -> list[str]:
        """nnU-Net's command, without the device."""
        words = [
            "nnUNetv2_train",
            str(dataset_id(self.dataset)),
            self.configuration,
            str(self.fold),
        ]
        return [*words, "-tr", self.trainer, "-p", self.plans]

    def command(self, device: str) -> list[str]:
        """The training, from the beginning or from where it was."""
        words = [*self.training_words(), "-device", device]
        return words + (["--c"] if self.state() is State.INTERRUPTED else [])


def write_runs(runs: Sequence[Run], folder: Path) -> None:
    """Keep the runs in a sweep's folder, for who looks at it later."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(
        folder / RUNS,
        json.dumps([{**asdict(run), "folder": str(run.folder)} for run in runs], indent=1),
    )


def read_runs(folder: Path) -> list[Run]:
    """The runs of a sweep's folder.

    Raises:
        FileNotFoundError: no sweep was ever started there.
    """
    if not (folder / RUNS).is_file():
        raise MissingFileError(
            f"{folder} is no folder of a sweep; type: nnunet-fm sweep CONFIG.yaml -o {folder}"
        )
    return [
        Run(**{**run, "folder": Path(run["folder"])})
        for run in json.loads((folder / RUNS).read_text())
    ]


@dataclass(frozen=True)
class PlannedSweep:
    """Runs, and the preprocessing that has to come first, as commands."""

    runs: list[Run]
    preprocessing: list[list[str]]


def plan_sweep(sweep: Sweep, preprocessed: Path, results: Path) -> PlannedSweep:
    """Write the plans of every run, after everything has been checked.

    Args:
        sweep: what is asked.
        preprocessed: nnUNet_preprocessed.
        results: nnUNet_results.

    Raises:
        FileNotFoundError, ValueError: unknown dataset, encoder or trainer, an impossible plan, a
            fold that does not exist, or a run's folder that holds another run.
    """
    names = [dataset_name(number) for number in sweep.datasets]
    for arm in sweep.encoders.values():
        _check_trainer(_trainer(arm))
    for dataset in names:
        if expected := sweep.expected.get(dataset_id(dataset)):
            check_expected(preprocessed / dataset, expected)
        if sweep.splits:
            write_splits(preprocessed / dataset, sweep.splits)
        _check_folds(sweep, preprocessed / dataset)
    runs, commands = [], {}
    for dataset in names:
        for name, arm in sweep.encoders.items():
            for ratio, seed in _subsets(sweep):
                written = _write(preprocessed / dataset, name, arm, ratio, seed)
                if not written.preprocessed:
                    words = [
                        "nnUNetv2_preprocess",
                        "-d",
                        str(dataset_id(dataset)),
                        "-plans_name",
                        written.identifier,
                    ]
                    commands[(dataset, _data(written))] = [*words, "-c", written.configuration]
                for fold in sweep.folds:
                    runs.append(_run(results, dataset, name, arm, (ratio, seed), fold, written))
    for run in runs:
        _check_folder(run, preprocessed)
    return PlannedSweep(runs, list(commands.values()))


def _subsets(sweep: Sweep) -> Iterator[tuple[float, int]]:
    """Ratios and seeds; all cases are the same cases with every seed, but another training."""
    return ((ratio, seed) for ratio in sweep.ratios for seed in sweep.seeds)


def _trainer(arm: Arm) -> str:
    dims = 3 if arm.configuration.startswith("3d") else 2
    return arm.trainer or default_trainer(arm.encoder, dims, arm.mix_slices)


def _check_trainer(name: str) -> None:
    known = trainer_names()
    if name not in known:
        raise InputError(unknown("trainer", name, known))


def _check_folds(sweep: Sweep, dataset: Path) -> None:
    splits = dataset / SPLITS
    if not splits.is_file():
        return  # nnU-Net makes five at the first training
    folds = load_json(str(splits))
    for fold in sweep.folds:
        if fold >= len(folds):
            raise InputError(
                f"fold {fold} of {dataset.name}; allowed: 0 to {len(folds) - 1} ({splits})"
            )
        if len(folds[fold]["val"]) < 2:
            raise InputError(
                f"fold {fold} of {dataset.name} validates {len(folds[fold]['val'])} case; allowed: 2 or more"
            )


def _write(dataset: Path, name: str, arm: Arm, ratio: float, seed: int) -> WrittenPlans:
    subset = TrainSubset(ratio, seed)
    options = PlanOptions(
        **arm.model_dump(exclude={"trainer"}),
        train_ratio=ratio,
        subset_seed=seed,
        output=f"SW_{name}_r{subset.percent}_s{seed}",
    )
    return write_plans(dataset, options)


def _data(written: WrittenPlans) -> str:
    configuration = load_json(str(written.path))["configurations"][written.configuration]
    return str(configuration.get("data_identifier", written.configuration))


def _run(
    results: Path,
    dataset: str,
    name: str,
    arm: Arm,
    subset: tuple[float, int],
    fold: int,
    written: WrittenPlans,
) -> Run:
    model = f"{_trainer(arm)}__{written.identifier}__{written.configuration}"
    folder = results / dataset / model / f"fold_{fold}"
    return Run(
        dataset,
        name,
        *subset,
        fold,
        _trainer(arm),
        written.identifier,
        written.configuration,
        folder,
    )


def _check_folder(run: Run, preprocessed: Path) -> None:
    """Refuse a folder that other plans began: nnU-Net keeps a copy of them beside the folds."""
    kept = run.folder.parent / "plans.json"
    if run.state() is State.NEW or not kept.is_file():
        return
    now = load_json(str(preprocessed / run.dataset / f"{run.plans}.json"))
    if different := differences(load_json(str(kept)), now, run.configuration):
        raise InputError(
            f"{run.folder} holds a run of another {some(different)}; give the encoder another name in the sweep, "
            "or move that folder away"
        )
