"""Lists of subjects to exclude."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from nnunet_fm.data.table_rows import read_subject_list
from nnunet_fm_pretrain.data.sources import Source


def read_subjects(path: Path) -> list[str]:
    """Read subject ids, `ID` or `DATASET/ID`, from a table or a plain list.

    Raises:
        FileNotFoundError, ValueError: see `read_subject_list`.
    """
    rows = read_subject_list(path)
    return [rows.subject(cells) for cells in rows.cells]


def plain(subject: str) -> str:
    """Return the id without BIDS' `sub-`."""
    dataset, slash, name = subject.rpartition("/")
    return f"{dataset}{slash}{name.removeprefix('sub-')}"


def without_subjects(
    sources: Sequence[Source], excluded: Iterable[str]
) -> tuple[list[Source], list[str]]:
    """Remove the sources of excluded subjects (`ID` or `DATASET/ID`).

    Returns:
        The other sources, and the excluded ids that match no source.
    """
    names = {plain(e) for e in excluded}

    def both(source: Source) -> set[str]:
        return {plain(source.subject), f"{source.dataset}/{plain(source.subject)}"}

    known = {name for s in sources for name in both(s)}
    return [s for s in sources if not names & both(s)], sorted(names - known)
