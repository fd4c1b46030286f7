"""Tables as laboratories have them: the right value, or a refusal that says what to do."""

from pathlib import Path

import pytest

from nnunet_fm.data.subject_table import read_table
from nnunet_fm.data.table_rows import read_rows

# Kind: a table whose cells do not stand where they seem to.
REFUSED_TABLES = {
    "an unquoted comma": (
        "subject_id,site,age,T1\n1,A,64,a.nii\n2,Essen, Ruhr,64,b.nii\n",
        "header has 4 columns, but line 3 has 5. Put quotes around a cell that contains ','",
    ),
    "a missing cell": ("subject_id,age,T1\n1,a.nii\n", "header has 3 columns, but line 2 has 2"),
    "decimal commas": ("subject_id,age,T1\n1,63,5,a.nii\n", "line 2 has 4"),
    "a trailing comma": ("subject_id,T1\n1,a.nii,\n", "line 2 has 3"),
    "a column twice": ("subject_id,age,T1,age\n1,64,a.nii,46\n", "two columns named age"),
    "an id column twice": ("subject_id,subject_id,T1\n1,2,a.nii\n", "two columns named subject_id"),
    "names that differ by spaces": ("subject_id,age, age\n1,64,46\n", "two columns named age"),
    "a quote that is not closed": ('subject_id,T1\n1,"a.nii\n2,b.nii\n', "line 3: unexpected end"),
    "a quote inside a quoted cell": ('subject_id,T1\n1,"a "x" b"\n', "line 2: .* is written twice"),
    "a workbook": (b"PK\x03\x04\x14\x00", "is a workbook or an archive; save the table as CSV"),
    "bytes that are no text": (b"subject_id,T1\n1,\x8d\x81\n", "t.csv is not text"),
    "a binary file": (b"\x5c\x01" + bytes(6), "t.csv is not text"),
}


@pytest.mark.parametrize("kind", REFUSED_TABLES)
def test_a_table_with_shifted_or_unreadable_cells_is_refused(kind: str, tmp_path: Path) -> None:
    content, message = REFUSED_TABLES[kind]
    file = tmp_path / "t.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as refusal:
        read_rows(file)
    assert str(file) in str(refusal.value)


# Kind: a table that is written another way and says the same.
SAME_TABLES = {
    "UTF-16": "subject_id,site,T1\n007,Köln,a.nii\n".encode("utf-16"),
    "UTF-16 without mark": "subject_id,site,T1\n007,Köln,a.nii\n".encode("utf-16-be"),
    "UTF-32": "subject_id,site,T1\n007,Köln,a.nii\n".encode("utf-32"),
    "Windows-1252": "subject_id,site,T1\n007,Köln,a.nii\n".encode("cp1252"),
    "row numbers of pandas": ",subject_id,site,T1\n0,007,Köln,a.nii\n".encode(),
    "empty columns at the end": "subject_id,site,T1,,\n007,Köln,a.nii,,\n".encode(),
    "R's quotes": '"subject_id" "site" "T1"\n"007" "Köln" "a.nii"\n'.replace(
        '" "', '"\t"'
    ).encode(),
    "a blank line in between": "subject_id,site,T1\n\n007,Köln,a.nii\n\n".encode(),
    "single quotes": "'subject_id';'site';'T1'\n'007';'Köln';'a.nii'\n".encode(),
}


@pytest.mark.parametrize("kind", SAME_TABLES)
def test_a_table_is_read_however_it_was_exported(kind: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(SAME_TABLES[kind])
    rows = read_rows(tmp_path / "t.csv")
    assert rows.cells == [{"subject_id": "007", "site": "Köln", "T1": "a.nii"}]
    assert rows.columns == ("subject_id", "site", "T1")


def test_a_guessed_encoding_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t.csv").write_bytes("subject_id,site\n007,Köln\n".encode("cp1252"))
    read_rows(tmp_path / "t.csv")
    assert "t.csv is not UTF-8; read as Windows-1252, e.g. 'Köln'" in caplog.text


@pytest.mark.parametrize("word", ["None", "NULL", ".", "<NA>", "#N/A", "-", "?", "NaN", ""])
def test_words_for_missing_values_are_no_paths_and_no_splits(word: str, tmp_path: Path) -> None:
    lines = ["subject_id,T1,T2,split", "1,a.nii,b.nii,train", f"2,c.nii,{word},{word}"]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    row = read_table(tmp_path / "t.csv").rows[1]
    assert (sorted(row.volumes), row.split) == (["T1"], "")


@pytest.mark.parametrize("name", ["Split", "SPLIT"])
def test_a_split_in_another_case_is_not_ignored(name: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"subject_id,T1,{name}\n1,a.nii,train\n2,b.nii,test\n")
    with pytest.raises(ValueError, match=f"has a column {name}; call it split"):
        read_table(tmp_path / "t.csv")
