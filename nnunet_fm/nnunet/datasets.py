"""nnU-Net's datasets: their ids, names and cross-validation folds."""

import os
import re
from pathlib import Path

from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some

DATASET_NAME = re.compile(r"Dataset(\d{3,})_.+")
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


def dataset_id(name: str) -> int:
    """Id of a dataset.

    >>> dataset_id("Dataset008_BraTS21")
    8

    Raises:
        ValueError: the name is not `DatasetNNN_NAME`.
    """
    match = DATASET_NAME.fullmatch(name)
    if match is None:
        raise InputError(f"dataset {name!r}; allowed: a name such as Dataset008_BraTS21")
    return int(match[1])


def dataset_name(given: int | str) -> str:
    """Full name of the dataset that an id or a name stands for.

    Args:
        given: an id such as `8` or `"8"`, or a name such as `Dataset008_BraTS21`.

    Raises:
        ValueError: neither an id nor a name, or an id that no folder of nnU-Net's has; the known
            datasets are named.
    """
    text = str(given)
    if text.isdecimal():
        return _name_of_id(int(text))
    if not text.startswith("Dataset"):
        raise InputError(
            f"dataset {text!r}; allowed: an id such as 8, or a name such as Dataset008_BraTS21"
        )
    return text


def _name_of_id(number: int) -> str:
    from nnunetv2.utilities.dataset_name_id_conversion import find_candidate_datasets

    names = [str(name) for name in find_candidate_datasets(number)]
    if not names:
        raise InputError(no_such_dataset(str(number)))
    if len(names) > 1:
        raise InputError(
            f"several datasets have the id {number}: {', '.join(names)}; give the full name"
        )
    return names[0]


def no_such_dataset(given: str) -> str:
    """Message for a dataset that none of nnU-Net's folders has: it names those they have."""
    known = [f"{name} ({', '.join(stages)})" for name, stages in sorted(known_datasets().items())]
    notes = []
    for variable in FOLDERS:
        folder = os.environ.get(variable)
        if not folder:
            notes.append(f"{variable} is not set")
        elif not os.path.isdir(folder):
            notes.append(f"{variable} is {folder}, which is no folder")
    note = f" ({'; '.join(notes)})" if notes else ""
    there = some(known, 10) or "none"
    return f"no dataset {given} in nnU-Net's folders{note}; there are: {there}"


def known_datasets() -> dict[str, list[str]]:
    """List the datasets of nnU-Net's folders with where they are: raw, preprocessed, results."""
    stages: dict[str, list[str]] = {}
    for variable in FOLDERS:
        root = os.environ.get(variable)
        for path in sorted(Path(root).glob("Dataset*")) if root else []:
            if path.is_dir():
                stages.setdefault(path.name, []).append(variable.removeprefix("nnUNet_"))
    return stages
