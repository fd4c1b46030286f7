"""Texts in CSV files that spreadsheets do not take for formulas, and how such files are read."""

import csv
from pathlib import Path
from typing import Any

from nnunet_fm.internal.errors import InputError, MissingFileError

FORMULA = ("=", "+", "-", "@", "\t", "\r")
MARK = "'"  # before a text that would be a formula
LONGEST_FIELD = 131_072  # csv's own limit, in characters


def csv_text(value: object) -> Any:
    """Return what to write for a value: a text that would be a formula gets a `'`.

    >>> csv_text("=1+1"), csv_text("-0.5"), csv_text(-0.5), csv_text("case_1")
    ("'=1+1", '-0.5', -0.5, 'case_1')
    """
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str) or _is_number(value):
        return value
    quoted = value[:1] == MARK and value[1:2] in (*FORMULA, MARK)
    return f"{MARK}{value}" if value.startswith(FORMULA) or quoted else value


def from_csv_text(text: str) -> str:
    """Return the text that `csv_text` was given.

    >>> from_csv_text("'=1+1"), from_csv_text("'a'")
    ('=1+1', "'a'")
    """
    marked = text[:1] == MARK and text[1:2] in (*FORMULA, MARK)
    return text[1:] if marked else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text[:1] not in ("\t", "\r")


def read_rows(path: Path, remedy: str) -> tuple[list[str], list[dict[str, str]]]:
    """Read a CSV file that this package wrote.

    Args:
        path: the file.
        remedy: what to do about a damaged file, for the error's message.

    Returns:
        Names of the columns, and the rows by column.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no CSV, or a row without a cell for every column; the line is named.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; {remedy}")
    rows = []
    line = 1
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.reader(stream, strict=True)
            columns = [from_csv_text(name) for name in next(reader, [])]
            for cells in reader:
                line = reader.line_num
                if len(cells) != len(columns):
                    raise csv.Error(f"{len(cells)} cells, {len(columns)} columns")
                rows.append(dict(zip(columns, map(from_csv_text, cells), strict=True)))
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}, line {line}, is damaged ({error}); {remedy}") from None
    return columns, rows
