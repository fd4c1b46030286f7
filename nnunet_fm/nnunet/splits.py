"""nnU-Net's cross-validation folds: the one rule for small datasets and for fold `all`."""

from collections.abc import Collection, Sequence
from pathlib import Path

from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_fm.internal.files import case_names
from nnunet_fm.internal.json_files import read_object
from nnunet_fm.internal.path_parts import check_ending
from nnunet_fm.nnunet.dataset_files import read_folds
from nnunet_fm.nnunet.file_names import DATASET_JSON, GROUND_TRUTH, SPLITS_JSON

NNUNET_SEED = 12345  # of the folds that nnU-Net draws by itself
NNUNET_FOLDS = 5  # that nnU-Net draws by itself; it refuses fewer cases than folds
ALL = "all"  # nnU-Net's fold that trains on all cases, and validates on the same
SEEN = f" (fold {ALL})"  # in the names of encoders whose validation cases were trained on
Split = dict[str, list[str]]
Fold = int | str  # a number, or `all`


def draw_folds(
    cases: Sequence[str], seed: int = NNUNET_SEED, folds: int = NNUNET_FOLDS
) -> list[Split]:
    """Draw folds as nnU-Net does.

    Args:
        cases: names of the labelled cases.
        seed: of the draw.
        folds: how many.

    Returns:
        For each fold, the cases of `train` and of `val`.
    """
    drawn = generate_crossval_split(list(cases), seed=seed, n_splits=folds)
    return [
        {side: [str(case) for case in fold[side]] for side in ("train", "val")} for fold in drawn
    ]


def labelled_cases(dataset: Path) -> list[str]:
    """List the cases; nnU-Net copies their ground truth once all are preprocessed.

    Args:
        dataset: the preprocessed dataset's folder.

    Returns:
        Names of the cases, sorted; nothing before nnU-Net has preprocessed them.
    """
    description = dataset / DATASET_JSON
    if not description.is_file():
        return []
    ending = read_object(description).get("file_ending")
    if ending is None:
        return []
    return case_names(dataset / GROUND_TRUTH, check_ending(ending, description))


def dataset_folds(dataset: Path) -> list[Split] | None:
    """Return the folds that nnU-Net trains a preprocessed dataset on.

    Args:
        dataset: the preprocessed dataset's folder.

    Returns:
        Those of its `splits_final.json`, or as nnU-Net will draw them in the first training: none
        where there are fewer cases than folds. None if the cases are not known yet.
    """
    splits = dataset / SPLITS_JSON
    if splits.is_file():
        return read_folds(splits)
    cases = labelled_cases(dataset)
    if not cases:
        return None
    return draw_folds(cases) if len(cases) >= NNUNET_FOLDS else []


def fold_split(dataset: Path, fold: Fold) -> Split | None:
    """Return the training and validation cases of a fold; None if they are not known.

    Args:
        dataset: the preprocessed dataset's folder.
        fold: its number, or `all`, which trains and validates on every case.
    """
    if fold == ALL:
        cases = labelled_cases(dataset)
        return {"train": cases, "val": cases} if cases else None
    folds = dataset_folds(dataset) or []
    return folds[int(fold)] if int(fold) < len(folds) else None


def first_fold(dataset: Path) -> Fold:
    """Return the fold to train first: 0, or `all` where nnU-Net can draw no folds."""
    return ALL if dataset_folds(dataset) == [] else 0


def parse_fold(folder_name: str) -> Fold | None:
    """Read the fold of `fold_0` or `fold_all`; None for other names.

    >>> parse_fold("fold_12"), parse_fold("fold_all"), parse_fold("fold_x")
    (12, 'all', None)
    """
    name = folder_name.removeprefix("fold_")
    if name == folder_name:
        return None
    if name == ALL:
        return ALL
    return int(name) if name.isdecimal() else None


def folds_to_predict(folder_names: Collection[str]) -> list[Fold]:
    """Return the folds whose models are averaged: the numbered ones, else `all`.

    >>> folds_to_predict(["fold_10", "fold_2", "fold_all"]), folds_to_predict(["fold_all"])
    ([2, 10], ['all'])
    """
    folds = [parse_fold(name) for name in folder_names]
    numbered = sorted(fold for fold in folds if isinstance(fold, int))
    return [*numbered] or [ALL]
