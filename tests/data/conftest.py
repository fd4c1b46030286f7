"""Subjects with small volumes, and a table that names them."""

from pathlib import Path

import pytest

from helpers.tables import write_subject_table


@pytest.fixture
def table_file(tmp_path: Path) -> Path:
    """Four subjects with T1, three of them with FLAIR."""
    return write_subject_table(tmp_path)
