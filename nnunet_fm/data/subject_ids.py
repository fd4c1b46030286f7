"""Canonical subject ids across collections that share patients.

The cases of BraTS 2023 GLI carry the numbers of BraTS 2021; UCSF-PDGM and UPENN-GBM list the
`BraTS21 ID` of their shared patients (298 and 447 of them) in a column of their tables.
"""

import re
from collections.abc import Iterable

# pattern of the whole id, with numbers or codes as groups; name of the collection
COLLECTIONS = (
    (re.compile(r"brats2021_0*(\d+)"), "brats2021"),
    (re.compile(r"brats-gli-0*(\d+)(?:-\d+)?"), "brats2021"),
    (re.compile(r"brats-(men|met|ped|ssa|goat)-(?:[a-z]+-)?0*(\d+)(?:-\d+)?"), "brats"),
    (re.compile(r"brats(1[789]|20)_(.+)"), "brats"),
    (re.compile(r"ucsf-pdgm-0*(\d+)(?:_fu\d+d?)?(?:_nifti)?"), "ucsf-pdgm"),
    (re.compile(r"upenn-gbm-0*(\d+)(?:_\d\d)?"), "upenn-gbm"),
    (re.compile(r"oas1_0*(\d+)(?:_mr\d+)?"), "oasis1"),
    (re.compile(r"oas2_0*(\d+)(?:_mr\d+)?"), "oasis2"),
    (re.compile(r"(?:oasis3)?sub-?oas3(\d+)|oas3(\d+)(?:_.*)?"), "oasis3"),
    (re.compile(r"ixi0*(\d+)(?:-.*)?"), "ixi"),
    (re.compile(r"(\d{3})_s_(\d{4})"), "adni"),
    (re.compile(r"tcga[-_]([a-z0-9]{2})[-_]([a-z0-9]{4})(?:[-_].*)?"), "tcga"),
)

CANONICAL_PREFIX = "@"


def subject_name(text: str, dataset: str = "") -> str:
    """Return the canonical spelling of a subject id.

    Args:
        text: id from a table, a folder or a file name.
        dataset: dataset of an id that does not belong to a known collection; the same id in
            another dataset is another subject.

    Returns:
        `@COLLECTION/NUMBER`, or `DATASET/ID` in lower case without the `sub-` of BIDS.

    Example:
        >>> subject_name("BraTS2021_00097"), subject_name("sub-07", "IXI")
        ('@brats2021/97', 'ixi/07')
    """
    plain = text.strip().lower().removeprefix("sub-")
    for pattern, collection in COLLECTIONS:
        match = pattern.fullmatch(plain)
        if match:
            codes = [group for group in match.groups() if group]
            return "/".join([CANONICAL_PREFIX + collection, *codes])
    return f"{dataset.strip().lower()}/{plain}"


def cross_references(values: Iterable[str]) -> set[str]:
    """Return the canonical names in the cells of a table's row, e.g. of its column `BraTS21 ID`."""
    names = map(subject_name, values)
    return {name for name in names if name.startswith(CANONICAL_PREFIX)}


def may_match(first: str, second: str) -> bool:
    """Return whether two canonical names can be one subject.

    They can if they are equal, or have the same id and at least one of them has no dataset.
    """
    if first == second:
        return True
    if first.startswith(CANONICAL_PREFIX) or second.startswith(CANONICAL_PREFIX):
        return False
    dataset, number = first.rsplit("/", 1)
    other_dataset, other_number = second.rsplit("/", 1)
    return number == other_number and not (dataset and other_dataset)
