"""Data-ratio subsets: nested, reproducible, and the release's rule to the letter."""

import random
from itertools import pairwise

import numpy as np
import pytest

from nnunet_fm.nnunet.train_subset import TrainSubset

RATIOS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


@pytest.mark.parametrize("cases", [7, 50, 190, 800, 1000, 1080])
def test_smaller_subsets_lie_in_larger_ones(cases: int) -> None:
    keys = [f"case{i:04d}" for i in range(cases)]
    subsets = [set(TrainSubset(r, seed=3).select(keys)) for r in RATIOS]
    assert [len(s) for s in subsets] == [max(1, int(cases * r)) for r in RATIOS]
    assert all(a <= b for a, b in pairwise(subsets))
    assert subsets == [set(TrainSubset(r, seed=3).select(keys[::-1])) for r in RATIOS]


def test_seeds_differ() -> None:
    keys = [f"case{i}" for i in range(40)]
    assert TrainSubset(0.5, 1).select(keys) != TrainSubset(0.5, 2).select(keys)


def test_the_reference_rule_is_the_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [f"case{i:04d}" for i in range(800)]
    state = random.getstate()
    with monkeypatch.context() as patch:  # the global generators are out of bounds
        for module, name in (
            (random, "seed"),
            (random, "sample"),
            (np.random, "seed"),
            (np.random, "permutation"),
        ):
            patch.setattr(module, name, lambda *_: pytest.fail("global random generator used"))
        chosen = {r: TrainSubset(r, rule="reference").select(keys) for r in (0.1, 0.2)}
    for ratio, subset in chosen.items():
        random.seed(42)
        assert subset == sorted(random.sample(keys, max(1, int(len(keys) * ratio))))
    random.setstate(state)
    assert not set(chosen[0.1]) <= set(chosen[0.2])  # why it is not the default


def test_plans_carry_it() -> None:
    subset = TrainSubset(0.2, 7)
    assert TrainSubset.from_plans({"train_subset": subset.to_json()}) == subset
    assert TrainSubset.from_plans({}).select(["b", "a"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0,), "above 0"),
        ((1.5,), "up to 1"),
        ((0.1, 1, "reference"), "seed 42"),
        ((0.1, 42, "nestd"), "Did you mean"),
    ],
)
def test_impossible_subsets(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainSubset(*arguments)
