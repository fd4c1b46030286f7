"""Plan a sweep: check everything, then write the plans of every run."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_fm.experiments.config import EncoderEntry, Sweep
from nnunet_fm.experiments.datasets import check_expected, check_fold, sweep_folds
from nnunet_fm.experiments.run_checks import check_training_data
from nnunet_fm.experiments.runs import Run, State
from nnunet_fm.internal.atomic_files import write_text
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.folders import nnunet_folder
from nnunet_fm.internal.messages import some
from nnunet_fm.nnunet.commands import require_trainer
from nnunet_fm.nnunet.dataset_files import read_dataset_json, read_plans
from nnunet_fm.nnunet.datasets import dataset_id, dataset_name
from nnunet_fm.nnunet.file_names import DATASET_JSON, PLANS_JSON, SPLITS_JSON
from nnunet_fm.nnunet.merge_plans import decoder_to_keep
from nnunet_fm.nnunet.next_steps import default_trainer, preprocess_command
from nnunet_fm.nnunet.plan_options import Device, PlanOptions
from nnunet_fm.nnunet.planning import NewPlans, make_plans
from nnunet_fm.nnunet.run_identity import plan_differences
from nnunet_fm.nnunet.splits import Split, labelled_cases
from nnunet_fm.nnunet.train_subset import TrainSubset
from nnunet_fm.nnunet.training_data import check_copied_labels
from nnunet_fm.nnunet.training_seed import seed_suffix


@dataclass(frozen=True)
class PlannedSweep:
    """A sweep that was checked; it is on disk once `write` has been called.

    Attributes:
        runs: the runs, dataset by dataset, encoder by encoder.
        plans: their plans, by dataset and identifier.
        folds: new content of files of folds.
        preprocessing: commands that have to run first, e.g. for another normalisation.
    """

    runs: list[Run]
    plans: dict[tuple[str, str], NewPlans]
    folds: dict[Path, list[Split]]
    preprocessing: list[list[str]]

    def write(self) -> None:
        """Write the plans and the folds into the preprocessed datasets."""
        for file, folds in self.folds.items():
            if not file.is_file():
                write_text(file, json.dumps(folds, indent=4))
        for plans in self.plans.values():
            plans.write()


@dataclass(frozen=True)
class _Subset:
    """Plans of one encoder on one subset of one dataset; its folds are runs."""

    dataset: str
    name: str
    entry: EncoderEntry
    ratio: float
    seed: int
    training_seed: int | None


def plan_sweep(sweep: Sweep, preprocessed: Path, results: Path) -> PlannedSweep:
    """Check everything and make the plans of every run; nothing is written.

    Args:
        sweep: the sweep.
        preprocessed: nnUNet_preprocessed.
        results: nnUNet_results.

    Raises:
        FileNotFoundError: a missing file of splits or weights, or no images to preprocess.
        ValueError: an unknown dataset, encoder or trainer, an impossible plan, a fold that does
            not exist, ratios that are one subset, or a run's folder that holds another run.
    """
    datasets = [dataset_name(number) for number in sweep.datasets]
    for entry in sweep.encoders.values():
        require_trainer(_trainer(entry))
    folds = {dataset: _check_dataset(sweep, preprocessed / dataset) for dataset in datasets}
    runs: list[Run] = []
    made: dict[tuple[str, str], NewPlans] = {}
    preprocessing: dict[Path, list[str]] = {}  # by data, which serve all ratios and seeds
    for subset in _subsets(sweep, datasets):
        plans = _make_plans(subset, preprocessed, sweep.device)
        made[subset.dataset, plans.identifier] = plans
        if not plans.preprocessed:
            _check_raw(subset.dataset, plans)
            preprocessing[plans.data] = preprocess_command(plans.content, plans.configuration)
        for fold in sweep.folds:
            runs.append(_run(subset, fold, folds[subset.dataset], plans, results))
            _check_folder(runs[-1], plans)
            split = folds[subset.dataset]
            if split:
                check_training_data(runs[-1], split[fold], preprocessed / subset.dataset)
    new_folds = {}
    if sweep.splits:
        new_folds = {preprocessed / name / SPLITS_JSON: f for name, f in folds.items() if f}
    _check_batches(runs, made)
    return PlannedSweep(runs, made, new_folds, list(preprocessing.values()))


def _subsets(sweep: Sweep, datasets: list[str]) -> Iterator[_Subset]:
    """Yield every combination except the folds.

    At ratio 1 all seeds select the same cases, but they are trainings of their own: the subset's
    seed is part of what a seeded training draws from.
    """
    for dataset in datasets:
        for name, entry in sweep.encoders.items():
            for ratio in sweep.ratios:
                for seed in sweep.seeds:
                    for training_seed in sweep.training_seeds or (None,):
                        yield _Subset(dataset, name, entry, ratio, seed, training_seed)


def _trainer(entry: EncoderEntry) -> str:
    dimensions = 3 if entry.configuration.startswith("3d") else 2
    return entry.trainer or default_trainer(entry.encoder, dimensions, entry.mix_slices)


def _check_dataset(sweep: Sweep, dataset: Path) -> list[Split] | None:
    """Check a preprocessed dataset against the sweep, and return its folds if they are known."""
    if not (dataset / DATASET_JSON).is_file():
        raise MissingFileError(
            f"{dataset.name} is not preprocessed; type: nnUNetv2_plan_and_preprocess "
            f"-d {dataset_id(dataset.name)}"
        )
    expected = sweep.expected.get(dataset_id(dataset.name))
    if expected:
        check_expected(dataset, expected)
    ending = read_dataset_json(dataset / DATASET_JSON).get("file_ending", "")
    check_copied_labels(dataset, labelled_cases(dataset), ending)
    folds = sweep_folds(dataset, sweep.splits)
    if folds is None:
        return None
    for fold in sweep.folds:
        check_fold(dataset, folds, fold)
        for seed in sweep.seeds:
            _check_ratios(sweep.ratios, seed, f"fold {fold} of {dataset.name}", folds[fold])
    return folds


def _check_ratios(ratios: Sequence[float], seed: int, where: str, split: Split) -> None:
    """Refuse ratios that select the same cases: their runs would differ in name only."""
    cases = len(split["train"])
    ratio_of: dict[tuple[str, ...], float] = {}
    for ratio in ratios:
        subset = tuple(TrainSubset(ratio, seed).select(split["train"]))
        other = ratio_of.setdefault(subset, ratio)
        if other != ratio:
            raise InputError(
                f"ratios {other:g} and {ratio:g} are the same {len(subset)} of the {cases} "
                f"training cases of {where}; remove one of them from ratios"
            )


def _check_raw(dataset: str, plans: NewPlans) -> None:
    """Refuse data that are not preprocessed and that cannot be."""
    raw = nnunet_folder("nnUNet_raw") / dataset
    if not (raw / DATASET_JSON).is_file():
        raise MissingFileError(
            f"configuration {plans.configuration} of {dataset} was never preprocessed "
            f"({plans.data} is not complete), and {raw} holds no images to preprocess; restore "
            "them, or choose another configuration"
        )


def _check_batches(runs: Sequence[Run], plans: Mapping[tuple[str, str], NewPlans]) -> None:
    """Refuse one encoder with several batches, as plans of an earlier sweep may have one."""
    first: dict[tuple[str, str], int] = {}
    for run in runs:
        content = plans[run.dataset, run.plans].content
        batch = int(content["configurations"][run.configuration].get("batch_size", 0))
        known = first.setdefault((run.dataset, run.encoder), batch)
        if batch != known:
            raise InputError(
                f"encoder {run.encoder} of {run.dataset} has plans with batches of {known} and of "
                f"{batch}; give encoders.{run.encoder}.batch_size={known}, or another name"
            )


def _make_plans(subset: _Subset, preprocessed: Path, device: Device) -> NewPlans:
    percent = TrainSubset(subset.ratio, subset.seed).percent
    options = PlanOptions(
        **subset.entry.model_dump(exclude={"trainer"}),
        train_ratio=subset.ratio,
        subset_seed=subset.seed,
        training_seed=subset.training_seed,
        output=f"SW_{subset.name}_r{percent}_s{subset.seed}{seed_suffix(subset.training_seed)}",
        device=device,
    )
    folder = preprocessed / subset.dataset
    kept = decoder_to_keep(_plans_of_others(folder, subset.name), options)
    if kept is not None:
        options = options.model_copy(update={"decoder": kept})
    return make_plans(folder, options)


def _plans_of_others(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """Read the plans of an encoder's runs, one after another."""
    of_encoder = re.compile(rf"SW_{re.escape(name)}_r\d+_s\d+(_t\d+)?")
    for file in sorted(folder.glob(f"SW_{name}_r*.json")):
        if of_encoder.fullmatch(file.stem):
            yield read_plans(file)


def _run(
    subset: _Subset, fold: int, folds: list[Split] | None, plans: NewPlans, results: Path
) -> Run:
    trainer = _trainer(subset.entry)
    model = f"{trainer}__{plans.identifier}__{plans.configuration}"
    train_cases = 0
    if folds:
        train_cases = len(TrainSubset(subset.ratio, subset.seed).select(folds[fold]["train"]))
    return Run(
        dataset=subset.dataset,
        encoder=subset.name,
        ratio=subset.ratio,
        seed=subset.seed,
        fold=fold,
        trainer=trainer,
        plans=plans.identifier,
        configuration=plans.configuration,
        folder=results / subset.dataset / model / f"fold_{fold}",
        train_cases=train_cases,
        training_seed=subset.training_seed,
    )


def _check_folder(run: Run, plans: NewPlans) -> None:
    """Refuse a run's folder that was written with other plans; nnU-Net keeps a copy of them."""
    kept = run.folder.parent / PLANS_JSON
    if run.state() is State.NEW or not kept.is_file():
        return
    different = plan_differences(read_plans(kept), plans.content, run.configuration)
    if different:
        raise InputError(
            f"{run.folder} holds a run of another {some(different)}; give the encoder another "
            "name in the sweep, or its former options, or move that folder away"
        )
