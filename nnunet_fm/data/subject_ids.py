"""Who is who: one spelling for each subject of the collections that share patients, whatever a file calls them.

BraTS 2023's GLI cases carry the numbers of BraTS 2021; UCSF-PDGM and UPENN-GBM list the `BraTS21
ID` of their shared patients (298 and 447 of them) in a column of their tables.
"""

import re
from collections.abc import Iterable

# pattern of the whole id, its groups numbers or codes; name of the collection
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


KNOWN = "@"


def subject_name(text: str, dataset: str = "") -> str:
    """One spelling of a subject's id.

    Args:
        text: id as a table, a folder or a file gives it.
        dataset: for ids of no known collection: the same id in another dataset is somebody else.

    Returns:
        `@COLLECTION/NUMBER`, or `DATASET/ID` in lower case without BIDS' `sub-`.
    """
    plain = text.strip().lower().removeprefix("sub-")
    for pattern, collection in COLLECTIONS:
        if match := pattern.fullmatch(plain):
            return "/".join([KNOWN + collection, *(g for g in match.groups() if g)])
    return f"{dataset.strip().lower()}/{plain}"


def other_names(values: Iterable[str]) -> set[str]:
    """Names of known collections among the values of a table's row, e.g. in its column `BraTS21 ID`."""
    return {name for name in map(subject_name, values) if name.startswith(KNOWN)}


def may_be_one(first: str, second: str) -> bool:
    """Whether two names can be one subject: equal, or the same id where one does not say of which dataset."""
    if first == second or KNOWN in (first[:1], second[:1]):
        return first == second
    (dataset, number), (other, other_number) = (name.rsplit("/", 1) for name in (first, second))
    return number == other_number and not (dataset and other)
