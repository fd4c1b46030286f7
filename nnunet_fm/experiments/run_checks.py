"""Check runs against what they were trained with, so that no table mixes what differs."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from nnunet_fm.experiments.runs import Run, State
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some
from nnunet_fm.nnunet.dataset_files import read_dataset_json, read_plans
from nnunet_fm.nnunet.file_names import BEST_CHECKPOINT, DATASET_JSON, PLANS_JSON, SPLITS_JSON
from nnunet_fm.nnunet.run_identity import plan_differences
from nnunet_fm.nnunet.run_record import RunRecord, read_record
from nnunet_fm.nnunet.splits import ALL, Split
from nnunet_fm.nnunet.train_subset import TrainSubset
from nnunet_fm.nnunet.training_data import data_differences, train_labels
from nnunet_fm.nnunet.training_seed import TRAINING_SEED

# the parts of a run's identity in which the runs of an encoder differ
OF_RUNS = ("train_subset", TRAINING_SEED)


def train_subset(run: Run) -> TrainSubset:
    """Read which part of the training split a run was trained on."""
    return TrainSubset.from_plans(_plans(run))


def check_training_data(run: Run, split: Split, dataset: Path) -> None:
    """Refuse a run that was trained on other cases or labels than the dataset has now.

    Args:
        run: a run; one without a record, or without a checkpoint, is not checked.
        split: cases of its fold.
        dataset: the preprocessed dataset's folder.
    """
    former = _record(run).train_labels
    if not former or run.state() is State.NEW:
        return
    cases = TrainSubset(run.ratio, run.seed).select(split["train"])
    ending = read_dataset_json(dataset / DATASET_JSON).get("file_ending", "")
    now = train_labels(dataset, cases, ending)
    different = data_differences(former, now)
    if different:
        raise InputError(
            f"{run.folder} was trained on other data than {dataset.name} has now ({different}); "
            "restore them, or move that folder away to train it again"
        )


def check_validation(run: Run, validated: Collection[str], split: Split | None) -> None:
    """Refuse a finished run whose validation is not one of its final weights on unseen cases.

    Args:
        run: a finished run; one without a record is not checked.
        validated: the cases whose predictions it holds.
        split: cases of its fold; None if unknown.
    """
    record = _record(run)
    if record.validated == BEST_CHECKPOINT:
        raise InputError(
            f"{run.folder} holds the validation of {BEST_CHECKPOINT}, which was chosen by the "
            f"cases that it is scored on; type: {' '.join(run.train_command())} --val"
        )
    seen = sorted(record.train_labels.keys() & set(validated))
    if seen and run.fold != ALL:
        raise InputError(f"{run.name} was trained on {some(seen)}, which it has validated, too")
    if split is None or not record.train_labels:
        return
    cases = set(train_subset(run).select(split["train"]))
    different = sorted(cases ^ record.train_labels.keys())
    if different:
        raise InputError(
            f"{run.name} was trained on other cases than fold {run.fold} of {SPLITS_JSON} has, "
            f"different: {some(different)}. Restore that file, or remove this run from the command"
        )


def check_same_training(runs: Sequence[Run]) -> None:
    """Refuse runs that a table would show as one encoder, or as one dataset, but that are not.

    Args:
        runs: finished runs.

    Raises:
        ValueError: runs of one encoder were trained with different plans, or runs of one dataset
            with different labels of a case.
    """
    first: dict[tuple[str, str], Run] = {}
    trained: dict[tuple[str, str], tuple[str, Run]] = {}
    for run in runs:
        other = first.setdefault((run.dataset, run.encoder), run)
        different = _plan_differences(other, run)
        if different:
            raise InputError(
                f"{other.folder} and {run.folder} are both called {run.encoder}, but differ in "
                f"{some(different)}; remove one of them from the command"
            )
        for case, labels in _record(run).train_labels.items():
            former, source = trained.setdefault((run.dataset, case), (labels, run))
            if former != labels:
                raise InputError(
                    f"{source.name} and {run.name} were trained with different labels of {case}; "
                    "train again the one with the former labels, or remove it from the command"
                )


def _plan_differences(one: Run, other: Run) -> list[str]:
    """List what differs between the plans of two runs besides the subset and the seed."""
    if one.folder.parent == other.folder.parent:
        return []
    if one.configuration != other.configuration:
        return ["configuration"]
    different = plan_differences(_plans(one), _plans(other), one.configuration)
    return [key for key in different if key not in OF_RUNS]


def _plans(run: Run) -> dict[str, Any]:
    return read_plans(run.folder.parent / PLANS_JSON)


def _record(run: Run) -> RunRecord:
    return read_record(run.folder) or RunRecord()
