"""Find runs in a sweep's folder or in nnU-Net's own result folders."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from nnunet_fm.experiments.runs import RUNS, Run, read_runs
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.nnunet.dataset_files import read_plans
from nnunet_fm.nnunet.encoder_in_plans import encoder_source
from nnunet_fm.nnunet.file_names import PLANS_JSON
from nnunet_fm.nnunet.splits import ALL, SEEN, Fold, parse_fold
from nnunet_fm.nnunet.train_subset import TrainSubset
from nnunet_fm.nnunet.training_seed import TrainingSeed, seed_suffix

MODEL = re.compile(r"(?P<trainer>[^_]\w*?)__(?P<plans>.+)__(?P<configuration>.+)")
DATASET = re.compile(r"Dataset\d{3}_.+")
SUBSET = re.compile(r"_r\d{3}(p\d\d)?(_s\d+)?$")  # how the plans of a subset end


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """Find runs, in the order of the folders; a run that several folders hold is returned once.

    Args:
        folders: folders of sweeps (`sweeps/NAME`), of datasets (`nnUNet_results/DatasetNNN_X`), or
            of models in these (`TRAINER__PLANS__CONFIGURATION`).

    Raises:
        FileNotFoundError: a folder with neither a sweep nor a model in it.
        ValueError: two runs with the same encoder, ratio, seeds and fold.
    """
    by_folder: dict[Path, Run] = {}
    for folder in folders:
        for run in _runs_in(folder.absolute()):
            by_folder.setdefault(run.folder.resolve(), run)
    runs = list(by_folder.values())
    runs = _distinguish(runs, _trainer, always=True)
    for key in (_plans, _configuration):
        runs = _distinguish(runs, key)
    by_name: dict[str, Run] = {}
    for run in runs:
        other = by_name.setdefault(run.name, run)
        if other is not run:
            raise InputError(
                f"{other.folder} and {run.folder} are both {run.name}; give one of them"
            )
    return runs


def _trainer(run: Run) -> str:
    return run.trainer


def _plans(run: Run) -> str:
    return _without_seeds(run.plans, run.training_seed)


def _configuration(run: Run) -> str:
    return run.configuration


def _distinguish(runs: Sequence[Run], key: Callable[[Run], str], always: bool = False) -> list[Run]:
    """Append a key to the encoders' names where several runs have one name and the keys differ.

    E.g. a frozen and a fine-tuned encoder are distinguished by their trainers.

    Args:
        runs: the runs.
        key: what may distinguish them.
        always: even if no two runs have one name, e.g. trainers of different ratios.
    """
    counts = Counter(run.name for run in runs)
    keys: dict[str, set[str]] = {}
    for run in runs:
        keys.setdefault(run.encoder, set()).add(key(run))
    ambiguous = {
        run.encoder
        for run in runs
        if len(keys[run.encoder]) > 1 and (always or counts[run.name] > 1)
    }
    return [
        replace(run, encoder=f"{run.encoder} ({key(run)})") if run.encoder in ambiguous else run
        for run in runs
    ]


def _runs_in(folder: Path) -> list[Run]:
    if (folder / RUNS).is_file():
        return read_runs(folder)
    models = [folder]
    if not MODEL.fullmatch(folder.name):
        models = sorted(path for path in folder.glob("*__*__*") if path.is_dir())
    runs = [
        _read_run(model, fold, number)
        for model in models
        for fold in sorted(model.glob("fold_*"))
        if (number := parse_fold(fold.name)) is not None and (model / PLANS_JSON).is_file()
    ]
    if not runs:
        raise MissingFileError(
            f"{folder} holds no runs; allowed: a sweep's folder (sweeps/NAME), "
            "nnUNet_results/DatasetNNN_X, or a model in that, with folds 0, 1, ... or all"
        )
    return runs


def _read_run(model: Path, fold: Path, number: Fold) -> Run:
    """Build a run from the names of nnU-Net's folders and the plans in them."""
    names = MODEL.fullmatch(model.name)
    if names is None or not DATASET.fullmatch(model.parent.name):
        raise InputError(
            f"{model} is not DatasetNNN_NAME/TRAINER__PLANS__CONFIGURATION, as in nnUNet_results"
        )
    plans = read_plans(model / PLANS_JSON)
    subset = TrainSubset.from_plans(plans)
    seeded = TrainingSeed.from_plans(plans)
    training_seed = None if seeded is None else seeded.seed
    encoder = f"nnU-Net {names['configuration']}"
    if encoder_source(plans, names["configuration"]):
        encoder = _without_seeds(names["plans"], training_seed)
    if number == ALL:  # never averaged or compared with runs that validate on unseen cases
        encoder += SEEN
    return Run(
        dataset=model.parent.name,
        encoder=encoder,
        ratio=subset.ratio,
        seed=subset.seed,
        fold=number,
        trainer=names["trainer"],
        plans=names["plans"],
        configuration=names["configuration"],
        folder=fold,
        training_seed=training_seed,
    )


def _without_seeds(plans: str, training_seed: int | None) -> str:
    """Remove the ratio and the seeds from the end of a plans' name."""
    return SUBSET.sub("", plans.removesuffix(seed_suffix(training_seed)))
