"""Read the text of a table, whatever its encoding, delimiter and quotes."""

import codecs
import csv
import io
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from nnunet_fm.internal.csv_text import LONGEST_FIELD, from_csv_text
from nnunet_fm.internal.errors import InputError, MissingFileError

DELIMITERS = (",", "\t", ";", "|")
QUOTES = ('"', "'")
# UTF-32 first: its mark begins with that of UTF-16
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
WESTERN = "cp1252"
NOT_ASCII = re.compile(r"[^\s,;|]*[^\x00-\x7f][^\s,;|]*")
ZIP_MARK = b"PK\x03\x04"

logger = logging.getLogger(__name__)


def read_lines(file: Path, expected: str) -> list[str]:
    """Read the lines of a text file, with their ends.

    Args:
        file: text in UTF-8, UTF-16 or UTF-32 (with or without a byte-order mark, UTF-32 only with),
            or else in Windows-1252, which is said in a warning.
        expected: what to give, for the error if there is no such file.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: a workbook, or bytes that are no text in these encodings.
    """
    if not file.is_file():
        raise MissingFileError(f"{file} does not exist; give {expected}")
    content = file.read_bytes()
    if content.startswith(ZIP_MARK):
        raise InputError(f"{file} is a workbook or an archive; save the table as CSV")
    encoding = _encoding(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not text ({error}); save it as UTF-8") from None
    if "\0" in text:
        raise InputError(f"{file} is not text (it contains NUL); give a CSV or TSV")
    if encoding == WESTERN:
        odd = NOT_ASCII.findall(text)[0]
        logger.warning(
            "%s is not UTF-8; read as Windows-1252, e.g. %r. Save it as UTF-8 if that is wrong",
            file,
            odd[:40],
        )
    return io.StringIO(text, newline="").readlines()


def _encoding(content: bytes) -> str:
    """Find the encoding: a byte-order mark, valid UTF-8, NULs of UTF-16, else Windows-1252."""
    for mark, encoding in BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return encoding
    if b"\0" in content:  # ASCII characters in UTF-16, or no text at all
        is_little = content[1::2].count(0) > content[::2].count(0)
        return "utf-16-le" if is_little else "utf-16-be"
    try:
        content.decode()
    except UnicodeDecodeError:
        return WESTERN
    return "utf-8"


def find_dialect(header: str, wanted: Sequence[str]) -> tuple[str, str]:
    """Find the delimiter and the quotes of a table from its header.

    They are those that separate one of the wanted names from its neighbours, which at most one
    delimiter does. `csv.Sniffer` guesses from frequencies and is wrong on tables of one column.

    Args:
        header: line of the column names.
        wanted: names of which a table should have one; without one, the delimiter is the most
            frequent.
    """
    for delimiter in DELIMITERS:
        for quote in QUOTES:
            reader = csv.reader(
                [header], delimiter=delimiter, quotechar=quote, skipinitialspace=True
            )
            try:
                names = [name.strip() for name in next(reader, [])]
            except csv.Error:  # a cell that is too long; `split_cells` says so
                continue
            if any(name in names for name in wanted):
                return delimiter, quote
    return max(DELIMITERS, key=header.count), QUOTES[0]


def split_cells(
    file: Path, lines: Sequence[str], start: int, dialect: tuple[str, str]
) -> Iterator[tuple[int, list[str]]]:
    """Split lines into cells without surrounding spaces; blank lines are skipped.

    Args:
        file: the table, for errors.
        lines: all lines of the file.
        start: number of lines to skip.
        dialect: delimiter and quotes.

    Yields:
        Line number, counted from 1, and cells of each row.

    Raises:
        ValueError: a quote that is not closed, or is followed by other characters.
    """
    delimiter, quote = dialect
    reader = csv.reader(
        lines[start:], delimiter=delimiter, quotechar=quote, skipinitialspace=True, strict=True
    )
    try:
        for cells in reader:
            stripped = [from_csv_text(cell.strip()) for cell in cells]
            if stripped not in ([], [""]):
                yield start + reader.line_num, stripped
    except csv.Error as error:
        if "field limit" in str(error):
            raise InputError(
                f"{file}, line {start + reader.line_num}: a cell of more than {LONGEST_FIELD} "
                "characters; give a table of subjects, or close its quotes"
            ) from None
        raise InputError(
            f"{file}, line {start + reader.line_num}: {error}; a cell in {quote} must end with "
            f"{quote}, and a {quote} inside it is written twice"
        ) from None
