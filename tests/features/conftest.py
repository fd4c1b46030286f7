"""Subjects with small volumes, and a table that names them."""

from pathlib import Path

import pytest

from helpers.tables import write_table, write_volume_file


@pytest.fixture
def table_file(tmp_path: Path) -> Path:
    """Four subjects with T1, three of them with FLAIR."""
    rows = []
    for subject in range(4):
        row = {
            "subject_id": f"Sübject {subject}",
            "age": 20 + subject,
            "T1": f"{subject}/t1.nii.gz",
            "FLAIR": "n/a",
        }
        write_volume_file(tmp_path / str(row["T1"]), 2 * subject)
        if subject:
            row["FLAIR"] = f"{subject}/flair.nii.gz"
            write_volume_file(tmp_path / str(row["FLAIR"]), 2 * subject + 1)
        rows.append(row)
    return write_table(tmp_path / "t.csv", rows)
