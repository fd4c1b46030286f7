"""Run the examples in docstrings."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["nested_subset", "sequences", "subject_ids", "table_rows"])
def test_examples(name: str) -> None:
    module = importlib.import_module(f"nnunet_fm.data.{name}")
    results = doctest.testmod(module)
    assert results.attempted
    assert not results.failed
