"""A table reads the same whatever program wrote it."""

import codecs
import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnunet_fm.data.table_rows import read_rows
from nnunet_fm.data.table_text import DELIMITERS, find_dialect, read_lines
from nnunet_fm.internal.csv_text import from_csv_text

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252")
LETTERS = "abcXYZ019 ,;|\t\"'_-./#äéñß"
CELLS = st.text(LETTERS, max_size=8)
IDS = st.text("abcXYZ0189_-", min_size=1, max_size=8)
QUIET = settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@QUIET
@given(
    rows=st.lists(st.tuples(IDS, CELLS, CELLS), min_size=1, max_size=4),
    header=st.permutations(["subject_id", "age, years; (MRI)", "Größe"]),
    delimiter=st.sampled_from(DELIMITERS),
    quotes=st.sampled_from([(csv.QUOTE_MINIMAL, '"'), (csv.QUOTE_ALL, '"'), (csv.QUOTE_ALL, "'")]),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(ENCODINGS),
)
def test_a_table_reads_the_same_in_any_dialect_and_encoding(
    rows: list[tuple[str, ...]],
    header: list[str],
    delimiter: str,
    quotes: tuple[int, str],
    line_end: str,
    encoding: str,
    tmp_path: Path,
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(
        text, delimiter=delimiter, quoting=quotes[0], quotechar=quotes[1], lineterminator=line_end
    )
    writer.writerows([header, *rows])
    (tmp_path / "t.csv").write_bytes(text.getvalue().encode(encoding))
    read = read_rows(tmp_path / "t.csv")
    assert read.columns == tuple(header)
    # a ' before a sign such as - is the mark of our own files, which keeps it from being a formula
    expected = [[from_csv_text(cell.strip()) for cell in row] for row in rows]
    assert [list(cells.values()) for cells in read.cells] == expected


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_BE, codecs.BOM_UTF16_LE, b""])
def test_utf_16_is_read_with_and_without_its_mark(mark: bytes, tmp_path: Path) -> None:
    little = mark != codecs.BOM_UTF16_BE
    content = "subject_id\nÄ1\n".encode("utf-16-le" if little else "utf-16-be")
    (tmp_path / "t.txt").write_bytes(mark + content)
    assert read_lines(tmp_path / "t.txt", "a list") == ["subject_id\n", "Ä1\n"]


@pytest.mark.parametrize(
    ("header", "dialect"),
    [
        ("subject_id", (",", '"')),
        ("a;subject_id;b,c,d", (";", '"')),
        ("'subject_id'|x", ("|", "'")),
        ("id\tage\tsex", ("\t", '"')),
    ],
)
def test_the_delimiter_is_what_surrounds_the_id_column(
    header: str, dialect: tuple[str, str]
) -> None:
    assert find_dialect(header, ["subject_id"]) == dialect
