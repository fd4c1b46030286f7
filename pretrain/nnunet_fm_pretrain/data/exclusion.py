"""Lists of subjects to leave out."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.messages import some
from nnunet_fm_pretrain.data.sources import Source

COLUMNS = ("subject_id", "participant_id")


def read_subjects(path: Path) -> list[str]:
    """Subject ids of a file: one a line, or a column of a CSV or TSV (BIDS' `participants.tsv`); `#` begins a comment.

    Raises:
        FileNotFoundError, ValueError: no such file, or no id in it.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; give a file with one subject id a line")
    lines = [
        line.split("#")[0].strip() for line in path.read_text(encoding="utf-8-sig").splitlines()
    ]
    lines = [line for line in lines if line]
    separator = next((s for s in "\t," if lines and s in lines[0]), None)
    if separator or (lines and lines[0] in COLUMNS):
        rows = list(csv.DictReader(lines, delimiter=separator or ","))
        column = next((c for c in COLUMNS if rows and c in rows[0]), None)
        if column is None:
            raise InputError(
                f"{path} has the columns {some(lines[0].split(separator), 10)}; allowed: one of {COLUMNS}"
            )
        lines = [row[column] for row in rows]
    if not lines:
        raise InputError(f"{path} names no subject; give one subject id a line")
    return lines


def plain(subject: str) -> str:
    """The id without BIDS' `sub-`."""
    dataset, slash, name = subject.rpartition("/")
    return f"{dataset}{slash}{name.removeprefix('sub-')}"


def without_subjects(
    sources: Sequence[Source], excluded: Iterable[str]
) -> tuple[list[Source], list[str]]:
    """Sources whose subject (`ID` or `DATASET/ID`) is not excluded, and the excluded ids that matched none."""
    names = {plain(e) for e in excluded}

    def both(source: Source) -> set[str]:
        return {plain(source.subject), f"{source.dataset}/{plain(source.subject)}"}

    known = {name for s in sources for name in both(s)}
    return [s for s in sources if not names & both(s)], sorted(names - known)
