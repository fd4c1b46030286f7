"""The examples in docstrings give what they show."""

import doctest
from types import ModuleType

import pytest

from nnunet_fm import evaluation
from nnunet_fm.evaluation import intervals, paired_tests
from nnunet_fm.heads import task


@pytest.mark.parametrize("module", [evaluation, intervals, paired_tests, task])
def test_examples_give_what_they_show(module: ModuleType) -> None:
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0
