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
        known = some(_known_datasets(), 10)
        raise InputError(f"no dataset {number} in nnU-Net's folders; there are: {known or 'none'}")
    if len(names) > 1:
        raise InputError(
            f"several datasets have the id {number}: {', '.join(names)}; give the full name"
        )
    return names[0]


def _known_datasets() -> list[str]:
    """Return the names of the datasets in nnU-Net's folders."""
    folders = [Path(os.environ[name]) for name in FOLDERS if os.environ.get(name)]
    return sorted({path.name for folder in folders for path in folder.glob("Dataset*")})
