"""Files of one result that are replaced together."""

import json
from pathlib import Path

import pytest

from nnunet_fm.internal.atomic_files import write_csv
from nnunet_fm.internal.result_sets import check_finished, replaced_together


def write(folder: Path, rows: int) -> None:
    with replaced_together(folder, "scores") as temporary:
        write_csv([{"case": f"c{n}"} for n in range(rows)], temporary / "scores.csv")
        (temporary / "figures").mkdir()
        (temporary / "figures" / "a.svg").write_text(f"{rows}")


def test_an_error_leaves_the_former_result(tmp_path: Path) -> None:
    write(tmp_path, 2)
    with pytest.raises(RuntimeError), replaced_together(tmp_path, "scores") as temporary:
        (temporary / "scores.csv").write_text("half")
        raise RuntimeError
    check_finished(tmp_path, "scores")
    assert (tmp_path / "scores.csv").read_text().split() == ["case", "c0", "c1"]
    assert (tmp_path / "figures" / "a.svg").read_text() == "2"


def test_a_table_that_lost_rows_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 3)
    (tmp_path / "scores.csv").write_text("case\nc0\n")
    with pytest.raises(ValueError, match=r"scores\.csv has 1 rows, but 3 were written; rerun"):
        check_finished(tmp_path, "scores")


def test_a_result_whose_replacement_was_killed_is_incomplete(tmp_path: Path) -> None:
    write(tmp_path, 3)
    (tmp_path / "finished_scores.json").write_text(json.dumps({"finished": False}))
    with pytest.raises(ValueError, match="is incomplete: the command that wrote it was killed"):
        check_finished(tmp_path, "scores")


def test_a_missing_file_and_a_damaged_marker_are_named(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (tmp_path / "figures" / "a.svg").unlink()
    with pytest.raises(ValueError, match=r"a\.svg is missing"):
        check_finished(tmp_path, "scores")
    (tmp_path / "finished_scores.json").write_text("[")
    with pytest.raises(ValueError, match=r"finished_scores\.json is damaged"):
        check_finished(tmp_path, "scores")


def test_a_result_of_version_0_1_has_no_marker_and_passes(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("case\nc0\n")
    check_finished(tmp_path, "scores")


def test_a_file_that_the_new_result_lacks_is_deleted(tmp_path: Path) -> None:
    write(tmp_path, 2)
    (tmp_path / "notes.txt").touch()  # the user's own
    with replaced_together(tmp_path, "scores") as temporary:
        write_csv([{"case": "c"}], temporary / "scores.csv")
    assert not (tmp_path / "figures" / "a.svg").exists()
    assert (tmp_path / "notes.txt").exists()
    check_finished(tmp_path, "scores")
