"""The runs that a report is about: of a sweep's folder, or of nnU-Net's own result folders."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from batchgenerators.utilities.file_and_folder_operations import load_json

from nnunet_fm.experiments.runs import RUNS, Run, read_runs
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.nnunet.encoder_in_plans import encoder_source
from nnunet_fm.nnunet.train_subset import TrainSubset

MODEL = re.compile(r"(?P<trainer>[^_]\w*?)__(?P<plans>.+)__(?P<configuration>.+)")
DATASET = re.compile(r"Dataset\d{3}_.+")
SUBSET = re.compile(r"_r\d{3}(p\d\d)?(_s\d+)?$")  # as plans of a subset end


def find_runs(given: Sequence[Path]) -> list[Run]:
    """Runs, in the order of the folders.

    Args:
        given: folders of sweeps (`sweeps/NAME`), of datasets (`nnUNet_results/DatasetNNN_X`), or of
            models in these (`TRAINER__PLANS__CONFIGURATION`).

    Raises:
        FileNotFoundError: a folder with neither a sweep nor a model in it.
        ValueError: two runs with the same encoder, ratio, seed and fold.
    """
    by_folder: dict[
        Path, Run
    ] = {}  # what two of the folders hold is one run, with the first one's name
    for run in (run for folder in given for run in _runs_of(folder.absolute())):
        by_folder.setdefault(run.folder.resolve(), run)
    runs = list(by_folder.values())
    for key in (lambda r: r.trainer, lambda r: SUBSET.sub("", r.plans), lambda r: r.configuration):
        runs = _told_apart(runs, key)
    by_name: dict[str, Run] = {}
    for run in runs:
        other = by_name.setdefault(run.name, run)
        if other is not run:
            raise InputError(
                f"{other.folder} and {run.folder} are both {run.name}; give one of them"
            )
    return runs


def _told_apart(runs: Sequence[Run], key: Callable[[Run], str]) -> list[Run]:
    """Encoders with several runs of one name, e.g. frozen and fine-tuned, get `key` behind theirs where it differs."""
    counts = Counter(run.name for run in runs)
    keys: dict[str, set[str]] = {}
    for run in runs:
        keys.setdefault(run.encoder, set()).add(key(run))
    twice = {run.encoder for run in runs if counts[run.name] > 1 and len(keys[run.encoder]) > 1}
    return [
        replace(r, encoder=f"{r.encoder} ({key(r)})") if r.encoder in twice else r for r in runs
    ]


def _runs_of(folder: Path) -> list[Run]:
    if (folder / RUNS).is_file():
        return read_runs(folder)
    models = (
        [folder]
        if MODEL.fullmatch(folder.name)
        else sorted(p for p in folder.glob("*__*__*") if p.is_dir())
    )
    runs = [
        _run(model, fold)
        for model in models
        for fold in sorted(model.glob("fold_*"))
        if fold.name.removeprefix("fold_").isdecimal() and (model / "plans.json").is_file()
    ]
    if not runs:
        raise MissingFileError(
            f"{folder} holds no runs; allowed: a sweep's folder (sweeps/NAME), nnUNet_results/DatasetNNN_X, or a "
            "model in that, with folds 0, 1, ..."
        )
    return runs


def _run(model: Path, fold: Path) -> Run:
    names = MODEL.fullmatch(model.name)
    if names is None or not DATASET.fullmatch(model.parent.name):
        raise InputError(
            f"{model} is no DatasetNNN_NAME/TRAINER__PLANS__CONFIGURATION, as in nnUNet_results"
        )
    plans = load_json(str(model / "plans.json"))
    subset = TrainSubset.from_plans(plans)
    trainer, identifier, configuration = names["trainer"], names["plans"], names["configuration"]
    encoder = (
        SUBSET.sub("", identifier)
        if encoder_source(plans, configuration)
        else f"nnU-Net {configuration}"
    )
    number = int(fold.name.removeprefix("fold_"))
    dataset = model.parent.name
    return Run(
        dataset,
        encoder,
        subset.ratio,
        subset.seed,
        number,
        trainer,
        identifier,
        configuration,
        fold,
    )
