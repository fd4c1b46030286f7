"""Canonical subject ids across collections that share patients.

The cases of BraTS 2023 GLI carry the numbers of BraTS 2021; UCSF-PDGM and UPENN-GBM list the
`BraTS21 ID` of their shared patients (298 and 447 of them) in a column of their tables.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator

# pattern of the whole id, with numbers or codes as groups; name of the collection
COLLECTIONS = (
    (re.compile(r"brats2021_0*(\d+)"), "brats2021"),
    (re.compile(r"brats-gli-0*(\d+)(?:-\d+)?"), "brats2021"),
    (re.compile(r"brats-(men|met|ped|ssa|goat)-(?:[a-z]+-)?0*(\d+)(?:-\d+)?"), "brats"),
    # one number in 2017 to 2019; those of TCIA have the number of a site since 2018
    (re.compile(r"brats1[789]_(?:(tcia)\d*|([a-z0-9]+))_(.+)"), "brats"),
    (re.compile(r"brats(20)_(.+)"), "brats"),
    (re.compile(r"ucsf-pdgm-0*(\d+)(?:_fu\d+d?)?(?:_nifti)?"), "ucsf-pdgm"),
    (re.compile(r"upenn-gbm-0*(\d+)(?:_\d\d)?"), "upenn-gbm"),
    (re.compile(r"oas1_0*(\d+)(?:_mr\d+)?"), "oasis1"),
    (re.compile(r"oas2_0*(\d+)(?:_mr\d+)?"), "oasis2"),
    (re.compile(r"(?:oasis3)?sub-?oas3(\d+)|oas3(\d+)(?:_.*)?"), "oasis3"),
    (re.compile(r"ixi0*(\d+)(?:-.*)?"), "ixi"),
    (re.compile(r"(?:adni)?(\d{3})_?s_?(\d{4})"), "adni"),
    (re.compile(r"tcga[-_]([a-z0-9]{2})[-_]([a-z0-9]{4})(?:[-_].*)?"), "tcga"),
)

CANONICAL_PREFIX = "@"
_QUOTED = re.compile(r"=?[\"'`\u2018-\u201f](.*)[\"'`\u2018-\u201f]")  # ="007" is Excel's
_PADDING = re.compile(r"(?<!\d)0+(?=\d)")
_FLOAT = re.compile(r"(\d+)\.0+")  # pandas writes whole numbers so, if one is missing
_NOT_ALPHANUMERIC = re.compile(r"[\W_]")


def unquoted(text: str) -> str:
    """Return an id without spaces, quotes (`"007"`, `'007'`, `="007"`) and slashes around it."""
    match = _QUOTED.fullmatch(text.strip())
    return (match.group(1) if match else text).strip().strip("/")


def subject_name(text: str, dataset: str = "") -> str:
    """Return the canonical spelling of a subject id.

    Args:
        text: id from a table, a folder or a file name; `DATASET/ID` names its dataset.
        dataset: dataset of an id that does not belong to a known collection; the same id in
            another dataset is another subject.

    Returns:
        `@COLLECTION/NUMBER`, or `DATASET/ID` in lower case without the `sub-` of BIDS.

    Example:
        >>> subject_name("BraTS2021_00097"), subject_name("sub-07", "IXI"), subject_name("IXI/07")
        ('@brats2021/97', 'ixi/07', 'ixi/07')
    """
    listed_dataset, _, subject = unquoted(text).rpartition("/")
    plain = unicodedata.normalize("NFC", unquoted(subject)).casefold().removeprefix("sub-")
    for pattern, collection in COLLECTIONS:
        match = pattern.fullmatch(plain)
        if match:
            codes = [group for group in match.groups() if group]
            return "/".join([CANONICAL_PREFIX + collection, *codes])
    return f"{_NOT_ALPHANUMERIC.sub('', (dataset or listed_dataset).casefold())}/{plain}"


def without_padding(text: str) -> str:
    """Return a canonical name without leading zeros: equal for spellings of one id.

    Example:
        >>> without_padding("sub-007") == without_padding("7")
        True
    """
    return "/".join(_without_padding(subject_name(text)))


def cross_references(values: Iterable[str]) -> set[str]:
    """Return the canonical names in the cells of a table's row, e.g. of its column `BraTS21 ID`."""
    names = (subject_name(value) for value in values if "/" not in value)  # paths name no subject
    return {name for name in names if name.startswith(CANONICAL_PREFIX)}


def may_match(first: str, second: str) -> bool:
    """Return whether two canonical names can be one subject.

    They can if they are equal, or have the same id and at least one of them has no dataset. Zeros
    in front of a number do not count, because spreadsheets remove them.
    """
    dataset, subject = _without_padding(first)
    other_dataset, other_subject = _without_padding(second)
    if subject != other_subject:
        return False
    if dataset == other_dataset:
        return True
    canonical = first.startswith(CANONICAL_PREFIX) or second.startswith(CANONICAL_PREFIX)
    return not canonical and not (dataset and other_dataset)


def _without_padding(name: str) -> tuple[str, str]:
    """Split a canonical name into dataset and id without zeros in front of numbers."""
    dataset, _, subject = name.rpartition("/")
    whole = _FLOAT.fullmatch(subject)
    return dataset, _PADDING.sub("", whole.group(1) if whole else subject)


class SubjectNames:
    """A list of subjects that finds an id however it is spelled.

    Example:
        >>> listed = SubjectNames(["sub-007", "IXI/IXI012-HH-1211"])
        >>> listed.find(subject_name("7")), listed.find(subject_name("IXI012"))
        ('sub-007', 'IXI/IXI012-HH-1211')
    """

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._by_id: dict[str, dict[str, str]] = {}
        for spelling in ids:
            self.add(subject_name(spelling), spelling)

    def __bool__(self) -> bool:
        return bool(self._by_id)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Iterate over canonical names and spellings."""
        for named in self._by_id.values():
            yield from named.items()

    def add(self, name: str, spelling: str) -> None:
        """Add a subject by its canonical name, with its id as the list spells it."""
        self._by_id.setdefault(_without_padding(name)[1], {}).setdefault(name, spelling)

    def find(self, name: str) -> str | None:
        """Return the spelling of a subject of the list that matches a canonical name, or None."""
        for other, spelling in self._by_id.get(_without_padding(name)[1], {}).items():
            if may_match(name, other):
                return spelling
        return None

    def comparable(self, names: Iterable[str]) -> bool:
        """Return whether a name is written like one in the list, so that no match means something.

        Ids of known collections are; others have the same letters and marks around the numbers.
        """
        forms = {_form(name) for name, _ in self}
        return any(_form(name) in forms for name in names)


def _form(name: str) -> str:
    """Return `@` for a known collection, else the id with its numbers replaced by `#`."""
    if name.startswith(CANONICAL_PREFIX):
        return CANONICAL_PREFIX
    return re.sub(r"\d+", "#", _without_padding(name)[1])
