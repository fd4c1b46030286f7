from pathlib import Path

import pytest

from nnunet_fm.data.table_rows import is_missing, read_rows, read_subject_list


@pytest.mark.parametrize("separator", ["\t", ",", ";", "|"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_cells_are_text_whatever_the_separator(tmp_path: Path, separator: str, mark: str) -> None:
    lines = [("subject_id", "path", "mask"), ("007", " a.nii ", "N/A"), ("", "", "")]
    text = "# exported\n\n" + "\n".join(separator.join(line) for line in lines)
    (tmp_path / "t.csv").write_text(mark + text, encoding="utf-8")
    rows = read_rows(tmp_path / "t.csv")
    assert rows.columns == ("subject_id", "path", "mask")
    assert rows.lines == [4, 5]
    assert [rows.subject(cells) for cells in rows.cells] == ["007", ""]
    assert rows.path(rows.cells[0], "path") == tmp_path / "a.nii"
    assert rows.path(rows.cells[0], "mask") is None
    with pytest.raises(ValueError, match="lacks the columns dataset, sequence; it has: subject_id"):
        rows.require("path", "dataset", "sequence")


def test_a_quoted_cell_may_hold_separators_and_line_ends(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('subject_id,note\na,"one, two\nthree"\nb,\n')
    rows = read_rows(tmp_path / "t.csv")
    assert [cells["note"] for cells in rows.cells] == ["one, two\nthree", ""]
    assert rows.lines == [3, 4]


@pytest.mark.parametrize(
    ("text", "subjects"),
    [
        ("# seen\nIXI/IXI002\n\nS99  # a typing error\n", ["IXI/IXI002", "S99"]),
        ("subject_id\n001\n", ["001"]),
        ("participant_id\tage\nsub-7\t30\n# sub-8\t40\n", ["sub-7"]),
    ],
)
def test_a_list_of_subjects_is_plain_text_or_a_table(
    tmp_path: Path, text: str, subjects: list[str]
) -> None:
    (tmp_path / "list.txt").write_text(text)
    rows = read_subject_list(tmp_path / "list.txt")
    assert [rows.subject(cells) for cells in rows.cells] == subjects


def test_bad_lists_of_subjects_say_what_is_allowed(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    with pytest.raises(FileNotFoundError, match="give a file with one subject id per line"):
        read_subject_list(file)
    file.write_text("# nobody\n")
    with pytest.raises(ValueError, match="names no subject; give one subject id per line"):
        read_subject_list(file)
    file.write_text("id,age\n7,30\n")
    with pytest.raises(ValueError, match="no column subject_id or participant_id; it has: id, age"):
        read_subject_list(file)


def test_words_for_missing_values() -> None:
    assert all(map(is_missing, ("", " ", "n/a", "NA", "NaN")))
    assert not any(map(is_missing, ("0", "none.nii", "nano")))
