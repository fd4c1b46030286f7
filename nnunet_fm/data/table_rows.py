"""Read delimited tables of subjects, and plain lists of subject ids, as text.

Every part of the program that reads a table of subjects reads its cells here:

* `read_rows` gives the cells of any CSV or TSV;
* `read_subject_list` gives subject ids from a table, or from a file with one id per line;
* `subject_table.read_table` gives visits with image paths and splits, for features and heads.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_fm.data.subject_ids import subject_name, unquoted
from nnunet_fm.data.table_text import DELIMITERS, find_dialect, read_lines, split_cells
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some

ID_COLUMNS = ("subject_id", "participant_id")
SESSION_COLUMN = "session_id"
SESSION_COLUMNS = (SESSION_COLUMN, "session")  # the latter in pretraining tables of 0.1
DATASET_COLUMN = "dataset"
# what R, pandas, Excel, SPSS, Stata, BIDS and TCGA write for a missing value, in lower case
MISSING = (
    *("", "n/a", "na", "n.a.", "<na>", "nan", "-nan", "nat", "none", "null", "nil"),
    *(".", "-", "--", "'--", "?"),
    *("#n/a", "#null!", "#value!", "#div/0!", "#ref!", "#name?", "#num!"),
    *("not available", "[not available]", "not applicable", "[not applicable]"),
)
COMMENT = re.compile(r"(^|\s)#.*")  # not inside an id such as P#1
SEPARATOR_HINT = "sep="  # Excel's first line


@dataclass(frozen=True)
class Rows:
    """The cells of a delimited table, as text without surrounding spaces.

    Attributes:
        file: the table; relative paths in its cells start at its folder.
        columns: names of the columns, in their order.
        cells: one dictionary per row, from column name to text.
        lines: line number of each row in the file, counted from 1.

    Example:
        >>> rows = Rows(Path("scans.csv"), ("subject_id",), [{"subject_id": "007"}], [2])
        >>> [rows.subject(cells) for cells in rows.cells]
        ['007']
    """

    file: Path
    columns: tuple[str, ...]
    cells: list[dict[str, str]]
    lines: list[int]

    @property
    def id_column(self) -> str:
        """The column of subject ids: `subject_id` or `participant_id`.

        Raises:
            ValueError: the table has neither.
        """
        for column in ID_COLUMNS:
            if column in self.columns:
                return column
        raise InputError(
            f"{self.file} has no column {' or '.join(ID_COLUMNS)}; it has: {some(self.columns, 10)}"
        )

    def numbered(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Iterate over line numbers and cells."""
        return zip(self.lines, self.cells, strict=True)

    def require(self, *columns: str) -> None:
        """Check that the table has these columns.

        Raises:
            ValueError: the table lacks some of them.
        """
        missing = [column for column in columns if column not in self.columns]
        if missing:
            raise InputError(
                f"{self.file} lacks the columns {', '.join(missing)}; "
                f"it has: {some(self.columns, 10)}"
            )

    def subject(self, cells: Mapping[str, str]) -> str:
        """Return the subject id of a row, as the table spells it; without quotes around it."""
        return unquoted(cells[self.id_column])

    def session(self, cells: Mapping[str, str], columns: Sequence[str] = SESSION_COLUMNS) -> str:
        """Return the session of a row; empty if the table has none.

        Args:
            cells: of the row.
            columns: that may hold it; the first one that the table has is read.
        """
        column = next((c for c in columns if c in self.columns), None)
        return "" if column is None or is_missing(cells[column]) else cells[column]

    def path(self, cells: Mapping[str, str], column: str) -> Path | None:
        """Return the path in a cell, relative paths below the table's folder; None if missing."""
        text = cells.get(column, "")
        return None if is_missing(text) else self.file.parent / text


def is_missing(text: str) -> bool:
    """Return whether a cell stands for a missing value: empty, or one of `MISSING`."""
    return text.strip().lower() in MISSING


def name_in_dataset(subject: str, cells: Mapping[str, str]) -> str:
    """Return the canonical name of a subject, within the dataset that its row names, if any."""
    dataset = cells.get(DATASET_COLUMN, "")
    return subject_name(subject, "" if is_missing(dataset) else dataset)


def is_path(text: str) -> bool:
    """Return whether a cell names a NIfTI file or, ending in a slash, a DICOM folder."""
    return text.lower().endswith((".nii", ".nii.gz")) or text.endswith("/")


def read_rows(file: Path) -> Rows:
    """Read a delimited table as text.

    The delimiter (comma, tab, semicolon or `|`) is the one that separates the column of subject ids
    from its neighbours. A byte-order mark, empty lines, and comment lines (`#`) before the header
    are skipped, and so are columns without a name.

    Args:
        file: CSV or TSV with a header, see `read_lines` for its encoding.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not text, a row has more or fewer cells than the header, two columns
            have one name, or a quote is not closed.
    """
    return _parse(file, read_lines(file, "a CSV or TSV with subject_id and a column of paths"))


def read_subject_list(file: Path) -> Rows:
    """Read subject ids from a table, or from a text file with one id per line.

    Args:
        file: CSV or TSV with a column `subject_id` or `participant_id`; or plain text with one id
            per line. An id may be written `DATASET/ID`, and in quotes; `#` starts a comment.

    Returns:
        Rows that have an id; those of plain text have the single column `subject_id`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: a table without an id column, or no id in the file.
    """
    lines = read_lines(file, "a file with one subject id per line")
    lines = [_without_comment(line) + "\n" for line in lines]
    header = next((line for line in lines if line.strip()), "")
    is_table = any(column in header for column in ID_COLUMNS)
    if is_table or any(delimiter in header.strip() for delimiter in DELIMITERS):
        rows = _parse(file, lines)
    else:
        ids = [{ID_COLUMNS[0]: line.strip()} for line in lines]
        rows = Rows(file, ID_COLUMNS[:1], ids, list(range(1, len(lines) + 1)))
    named = [(line, cells) for line, cells in rows.numbered() if rows.subject(cells)]
    if not named:
        raise InputError(f"{file} names no subject; give one subject id per line")
    return Rows(file, rows.columns, [cells for _, cells in named], [line for line, _ in named])


def _without_comment(line: str) -> str:
    return COMMENT.sub("", line.rstrip("\r\n"))


def _parse(file: Path, lines: Sequence[str]) -> Rows:
    """Split lines into cells; the first line that is not empty or a comment is the header."""
    start = 0
    while start < len(lines) and _is_skipped(lines[start]):
        start += 1
    dialect = find_dialect(lines[start] if start < len(lines) else "", ID_COLUMNS)
    rows = list(split_cells(file, lines, start, dialect))
    if not rows:
        return Rows(file, (), [], [])
    names = rows.pop(0)[1]
    _check_names(file, names)
    _check_widths(file, len(names), rows, dialect[0])
    cells = [dict(zip(names, row, strict=True)) for _, row in rows]
    for row in cells:
        row.pop("", None)  # a column without a name, e.g. row numbers of pandas
    columns = tuple(name for name in names if name)
    return Rows(file, columns, cells, [line for line, _ in rows])


def _is_skipped(line: str) -> bool:
    return not _without_comment(line).strip() or line.lower().startswith(SEPARATOR_HINT)


def _check_names(file: Path, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise InputError(f"{file} has two columns named {some(twice)}; rename or remove one")


def _check_widths(
    file: Path, width: int, rows: Sequence[tuple[int, list[str]]], delimiter: str
) -> None:
    wrong = [f"line {line} has {len(cells)}" for line, cells in rows if len(cells) != width]
    if wrong:
        raise InputError(
            f"{file}: the header has {width} columns, but {some(wrong)}. Put quotes around a cell "
            f"that contains {delimiter!r}, and give every row all its cells, even if empty"
        )
