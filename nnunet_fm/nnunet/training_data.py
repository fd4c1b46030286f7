"""Which cases, with which labels, a run is trained on, and how two such sets differ."""

import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.files import files_sha256
from nnunet_fm.internal.messages import some
from nnunet_fm.nnunet.datasets import dataset_id
from nnunet_fm.nnunet.file_names import GROUND_TRUTH, TRAIN_LABELS

DIGITS = 16  # of a hash: 64 bits

TrainLabels = dict[str, str]  # hash of the label file of each case; empty if there is no file


def train_labels(dataset: Path, cases: Iterable[str], ending: str) -> TrainLabels:
    """Hash the label files of training cases.

    Args:
        dataset: the preprocessed dataset's folder, with nnU-Net's copies of the label files.
        cases: names of the cases.
        ending: ending of the label files.
    """
    return {case: _file_hash(dataset / GROUND_TRUTH / f"{case}{ending}") for case in sorted(cases)}


def _file_hash(file: Path) -> str:
    if not file.is_file():
        return ""
    facts = file.stat()
    return _hash_of(file, facts.st_mtime_ns, facts.st_size)


@cache
def _hash_of(file: Path, _modified: int, _size: int) -> str:
    """Hash a file; many runs share their cases."""
    return files_sha256([file])[:DIGITS]


def check_copied_labels(dataset: Path, cases: Iterable[str], ending: str) -> None:
    """Refuse a preprocessed dataset whose labels are not those in nnUNet_raw, where that is set.

    nnU-Net scores against copies, and preprocessing replaces only those that are older.

    Args:
        dataset: the preprocessed dataset's folder.
        cases: names of the cases to check; a case that only one folder has is not.
        ending: ending of the label files.
    """
    root = os.environ.get("nnUNet_raw")
    if not root:
        return
    raw = Path(root) / dataset.name / TRAIN_LABELS
    copies = train_labels(dataset, cases, ending)
    outdated = []
    for case, copied in copies.items():
        label = _file_hash(raw / f"{case}{ending}")
        if label and copied and label != copied:
            outdated.append(case)
    if outdated:
        raise InputError(
            f"{dataset / GROUND_TRUTH} holds other labels of {some(outdated)} than {raw}. Remove "
            f"that folder and type nnUNetv2_preprocess -d {dataset_id(dataset.name)}; or unset "
            "nnUNet_raw to use the copies as they are"
        )


def data_differences(former: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Describe how training data differ; empty if they are the same.

    Args:
        former: label hashes of the cases that a run was trained on; empty if unknown.
        now: those that it would be trained on now.
    """
    if not former:
        return ""
    changed = [case for case in former if case in now and former[case] != now[case]]
    parts = {
        "no longer": former.keys() - now.keys(),
        "new": now.keys() - former.keys(),
        "with other labels": changed,
    }
    return "; ".join(f"{word}: {some(sorted(cases))}" for word, cases in parts.items() if cases)
