from pathlib import Path

import pytest

from helpers.tables import write_table
from nnunet_fm.features import read_table


def rows(**changes: object) -> list[dict[str, object]]:
    return [
        {"subject_id": f"s{n}", "split": "train", "age": 20 + n, "T1": f"{n}.nii.gz"} | changes
        for n in range(3)
    ]


def test_path_columns_are_found_by_what_is_in_them(table_file: Path) -> None:
    table = read_table(table_file)
    assert table.modalities == ("T1", "FLAIR")
    assert [r.name for r in table.rows] == [f"Sübject {n}" for n in range(4)]
    assert list(table.rows[0].volumes) == ["T1"]
    assert table.rows[1].volumes["FLAIR"] == table_file.parent / "1/flair.nii.gz"
    assert table.rows[2].values["age"] == "22"
    assert read_table(str(table_file), ["FLAIR"]).modalities == ("FLAIR",)


def test_a_bids_table_finds_its_images(tmp_path: Path) -> None:
    for name in (
        "ses-1/anat/sub-7_ses-1_T1w",
        "ses-2/anat/sub-7_ses-2_T1w",
        "ses-1/anat/sub-7_ses-1_T1w_mask",
    ):
        path = tmp_path / "sub-7" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    people = [{"participant_id": "sub-7", "age": 30}, {"participant_id": "sub-8", "age": 40}]
    table = read_table(write_table(tmp_path / "participants.tsv", people))
    assert [(r.name, sorted(r.volumes)) for r in table.rows] == [
        ("7/1", ["T1"]),
        ("7/2", ["T1"]),
        ("8", []),
    ]
    assert table.modalities == ("T1",)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"id": "a", "T1": "a.nii"}], "no column subject_id or participant_id; it has: id, T1"),
        (rows(T1="n/a"), "no column of paths .*--modalities"),
        (rows(subject_id=""), "no subject in line 2, 3, 4"),
        (
            rows(subject_id="s1"),
            r"names s1 twice; allowed: one row per visit \(column session_id\)",
        ),
        (rows(split="training"), "unknown split training; allowed: train, val, test"),
        (
            [*rows(session_id="1"), *rows(session_id="2", split="test")],
            "3 subjects in two splits: s0, s1, s2; splits are by subject",
        ),
    ],
)
def test_bad_tables_say_what_is_allowed(
    lines: list[dict[str, object]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        read_table(write_table(tmp_path / "t.csv", lines))


def test_missing_files_and_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist; give a CSV or TSV"):
        read_table(tmp_path / "nothing.csv")
    with pytest.raises(
        ValueError, match="unknown column .* 'T2'.*Allowed: T1, age, split, subject_id"
    ):
        read_table(write_table(tmp_path / "t.csv", rows()), ["T2"])
    (tmp_path / "empty.csv").write_text("subject_id,T1\n")
    with pytest.raises(ValueError, match="has no rows"):
        read_table(tmp_path / "empty.csv")


def test_sessions_have_one_column(tmp_path: Path) -> None:
    table = read_table(write_table(tmp_path / "t.csv", rows(session_id="01")))
    assert [row.name for row in table.rows] == ["s0/01", "s1/01", "s2/01"]
    table = read_table(write_table(tmp_path / "u.csv", rows(session="01")))  # a target, as in 0.1
    assert [row.name for row in table.rows] == ["s0", "s1", "s2"]
    assert table.rows[0].values["session"] == "01"
