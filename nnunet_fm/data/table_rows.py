"""Read delimited tables of subjects, and plain lists of subject ids, as text.

Every part of the program that reads a table of subjects reads its cells here:

* `read_rows` gives the cells of any CSV or TSV;
* `read_subject_list` gives subject ids from a table, or from a file with one id per line;
* `subject_table.read_table` gives visits with image paths and splits, for features and heads.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.messages import some

ID_COLUMNS = ("subject_id", "participant_id")
SESSION_COLUMN = "session_id"
SESSION_COLUMNS = (SESSION_COLUMN, "session")  # the latter in pretraining tables of 0.1
DATASET_COLUMN = "dataset"
MISSING = ("", "n/a", "na", "nan")
SEPARATORS = "\t,;"
COMMENT = "#"


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
        """Return the subject id of a row, as the table spells it."""
        return cells[self.id_column]

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
    """Return whether a cell stands for a missing value: empty, `n/a`, `na` or `nan`."""
    return text.strip().lower() in MISSING


def is_path(text: str) -> bool:
    """Return whether a cell names a NIfTI file or, ending in a slash, a DICOM folder."""
    return text.lower().endswith((".nii", ".nii.gz")) or text.endswith("/")


def read_rows(file: Path) -> Rows:
    """Read a delimited table as text.

    The separator is the first of tab, comma and semicolon that the header contains. A byte-order
    mark, empty lines, and comment lines (`#`) before the header are skipped.

    Args:
        file: CSV or TSV in UTF-8 with a header.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not UTF-8 text.
    """
    return _parse(file, _read_lines(file, "a CSV or TSV with subject_id and a column of paths"))


def read_subject_list(file: Path) -> Rows:
    """Read subject ids from a table, or from a text file with one id per line.

    Args:
        file: CSV or TSV with a column `subject_id` or `participant_id`; or plain text with one id
            per line. An id may be written `DATASET/ID`; `#` starts a comment.

    Returns:
        Rows that have an id; those of plain text have the single column `subject_id`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: a table without an id column, or no id in the file.
    """
    lines = _read_lines(file, "a file with one subject id per line")
    header = next((line for line in map(_without_comment, lines) if line), "")
    if header in ID_COLUMNS or any(separator in header for separator in SEPARATORS):
        rows = _parse(file, lines)
    else:
        ids = [{ID_COLUMNS[0]: line} for line in lines]
        rows = Rows(file, ID_COLUMNS[:1], ids, list(range(1, len(lines) + 1)))
    named = []
    for line, cells in rows.numbered():
        subject = _without_comment(rows.subject(cells))
        if subject:
            named.append((line, {**cells, rows.id_column: subject}))
    if not named:
        raise InputError(f"{file} names no subject; give one subject id per line")
    return Rows(file, rows.columns, [cells for _, cells in named], [line for line, _ in named])


def _read_lines(file: Path, expected: str) -> list[str]:
    if not file.is_file():
        raise MissingFileError(f"{file} does not exist; give {expected}")
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            return stream.readlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text ({error}); save it as UTF-8") from error


def _without_comment(line: str) -> str:
    return line.split(COMMENT)[0].strip()


def _parse(file: Path, lines: Sequence[str]) -> Rows:
    """Split lines into cells; the first line that is not empty or a comment is the header."""
    start = next((n for n, line in enumerate(lines) if _without_comment(line)), len(lines))
    header = lines[start] if start < len(lines) else ""
    separator = next((s for s in SEPARATORS if s in header), ",")
    reader = csv.DictReader(lines[start:], delimiter=separator)
    columns = tuple(reader.fieldnames or ())
    cells = []
    numbers = []
    for row in reader:
        cells.append({column: (row[column] or "").strip() for column in columns})
        numbers.append(start + reader.line_num)
    return Rows(file, columns, cells, numbers)
