"""Plan a sweep: check everything, then write the plans of every run."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from batchgenerators.utilities.file_and_folder_operations import load_json

from nnunet_fm.experiments.config import EncoderEntry, Sweep
from nnunet_fm.experiments.datasets import check_expected, write_splits
from nnunet_fm.experiments.runs import Run, State
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some, unknown
from nnunet_fm.nnunet.commands import trainer_names
from nnunet_fm.nnunet.datasets import dataset_id, dataset_name
from nnunet_fm.nnunet.file_names import PLANS_JSON, SPLITS_JSON
from nnunet_fm.nnunet.plan_options import PlanOptions
from nnunet_fm.nnunet.planning import WrittenPlans, default_trainer, write_plans
from nnunet_fm.nnunet.run_identity import plan_differences
from nnunet_fm.nnunet.train_subset import TrainSubset


@dataclass(frozen=True)
class PlannedSweep:
    """A sweep whose plans are written.

    Attributes:
        runs: the runs, dataset by dataset, encoder by encoder.
        preprocessing: commands that have to run first, e.g. for another normalisation.
    """

    runs: list[Run]
    preprocessing: list[list[str]]


@dataclass(frozen=True)
class _Subset:
    """Plans of one encoder on one subset of one dataset; its folds are runs."""

    dataset: str
    name: str
    entry: EncoderEntry
    ratio: float
    seed: int


def plan_sweep(sweep: Sweep, preprocessed: Path, results: Path) -> PlannedSweep:
    """Check everything, then write the plans of every run.

    Args:
        sweep: the sweep.
        preprocessed: nnUNet_preprocessed.
        results: nnUNet_results.

    Raises:
        FileNotFoundError: a missing file of splits or weights.
        ValueError: an unknown dataset, encoder or trainer, an impossible plan, a fold that does
            not exist, or a run's folder that holds another run.
    """
    datasets = [dataset_name(number) for number in sweep.datasets]
    for entry in sweep.encoders.values():
        _check_trainer(_trainer(entry))
    for dataset in datasets:
        _check_dataset(sweep, preprocessed / dataset)
    runs: list[Run] = []
    preprocessing: dict[tuple[str, str], list[str]] = {}
    for subset in _subsets(sweep, datasets):
        written = _write_plans(subset, preprocessed)
        if not written.preprocessed:  # the same data serves all ratios and seeds
            data = (subset.dataset, _data_identifier(written))
            preprocessing[data] = _preprocess_command(subset.dataset, written)
        runs += [_run(subset, fold, written, results) for fold in sweep.folds]
    for run in runs:
        _check_folder(run, preprocessed)
    return PlannedSweep(runs, list(preprocessing.values()))


def _subsets(sweep: Sweep, datasets: list[str]) -> Iterator[_Subset]:
    """Yield every combination except the folds.

    At ratio 1 all seeds select the same cases, but they are trainings of their own.
    """
    for dataset in datasets:
        for name, entry in sweep.encoders.items():
            for ratio in sweep.ratios:
                for seed in sweep.seeds:
                    yield _Subset(dataset, name, entry, ratio, seed)


def _trainer(entry: EncoderEntry) -> str:
    dimensions = 3 if entry.configuration.startswith("3d") else 2
    return entry.trainer or default_trainer(entry.encoder, dimensions, entry.mix_slices)


def _check_trainer(name: str) -> None:
    known = trainer_names()
    if name not in known:
        raise InputError(unknown("trainer", name, known))


def _check_dataset(sweep: Sweep, dataset: Path) -> None:
    """Check a preprocessed dataset against the sweep, and write the sweep's folds into it."""
    expected = sweep.expected.get(dataset_id(dataset.name))
    if expected:
        check_expected(dataset, expected)
    if sweep.splits:
        write_splits(dataset, sweep.splits)
    splits = dataset / SPLITS_JSON
    if not splits.is_file():
        return  # nnU-Net draws five folds in its first training
    folds = load_json(str(splits))
    for fold in sweep.folds:
        if fold >= len(folds):
            raise InputError(
                f"fold {fold} of {dataset.name}; allowed: 0 to {len(folds) - 1} ({splits})"
            )
        if len(folds[fold]["val"]) < 2:
            raise InputError(
                f"fold {fold} of {dataset.name} validates {len(folds[fold]['val'])} case; "
                "allowed: 2 or more"
            )


def _write_plans(subset: _Subset, preprocessed: Path) -> WrittenPlans:
    percent = TrainSubset(subset.ratio, subset.seed).percent
    options = PlanOptions(
        **subset.entry.model_dump(exclude={"trainer"}),
        train_ratio=subset.ratio,
        subset_seed=subset.seed,
        output=f"SW_{subset.name}_r{percent}_s{subset.seed}",
    )
    return write_plans(preprocessed / subset.dataset, options)


def _data_identifier(written: WrittenPlans) -> str:
    """Return the name of the folder of preprocessed data that a configuration uses."""
    configuration = load_json(str(written.path))["configurations"][written.configuration]
    return str(configuration.get("data_identifier", written.configuration))


def _preprocess_command(dataset: str, written: WrittenPlans) -> list[str]:
    argv = ["nnUNetv2_preprocess", "-d", str(dataset_id(dataset))]
    return [*argv, "-plans_name", written.identifier, "-c", written.configuration]


def _run(subset: _Subset, fold: int, written: WrittenPlans, results: Path) -> Run:
    trainer = _trainer(subset.entry)
    model = f"{trainer}__{written.identifier}__{written.configuration}"
    return Run(
        dataset=subset.dataset,
        encoder=subset.name,
        ratio=subset.ratio,
        seed=subset.seed,
        fold=fold,
        trainer=trainer,
        plans=written.identifier,
        configuration=written.configuration,
        folder=results / subset.dataset / model / f"fold_{fold}",
    )


def _check_folder(run: Run, preprocessed: Path) -> None:
    """Refuse a run's folder that was written with other plans; nnU-Net keeps a copy of them."""
    kept = run.folder.parent / PLANS_JSON
    if run.state() is State.NEW or not kept.is_file():
        return
    current = load_json(str(preprocessed / run.dataset / f"{run.plans}.json"))
    different = plan_differences(load_json(str(kept)), current, run.configuration)
    if different:
        raise InputError(
            f"{run.folder} holds a run of another {some(different)}; give the encoder another "
            "name in the sweep, or move that folder away"
        )
