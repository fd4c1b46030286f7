"""Subsets of subjects and the strata of numbers and times."""

import numpy as np
import pytest

from nnunet_fm.heads.subsets import quantile_strata, stratified_subset, survival_strata


def test_subsets_are_nested_stratified_and_indifferent_to_order() -> None:
    subjects = [f"s{n}" for n in range(164)]
    classes = ["cn"] * 56 + ["mci"] * 74 + ["ad"] * 34
    smaller: set[str] = set()
    for ratio in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0):
        selected = stratified_subset(subjects, classes, ratio, seed=3)
        of_class = [
            sum(classes[subjects.index(s)] == c for s in selected) for c in ("cn", "mci", "ad")
        ]
        assert of_class == [int(ratio * n + 0.5) for n in (56, 74, 34)]
        assert smaller <= set(selected)
        smaller = set(selected)
        assert set(stratified_subset(subjects[::-1], classes[::-1], ratio, seed=3)) == smaller
    assert set(stratified_subset(subjects, classes, 0.2, 4)) != set(
        stratified_subset(subjects, classes, 0.2, 3)
    )
    fewer = set(stratified_subset(subjects[1:], classes[1:], 0.4, 3))
    assert len(fewer ^ set(stratified_subset(subjects, classes, 0.4, 3))) <= 2
    assert len(stratified_subset(["a", "b"], ["x", "y"], 0.1, 0)) == 2
    for ratio in (0, 1.2):
        with pytest.raises(ValueError, match=r"allowed: above 0, up to 1"):
            stratified_subset(subjects, classes, ratio, 0)
    with pytest.raises(ValueError, match="a subject is listed twice"):
        stratified_subset(["a", "a"], [0, 0], 0.5, 0)


def test_strata_of_numbers_are_quarters() -> None:
    assert np.bincount(quantile_strata(np.random.default_rng(0).random(40))).tolist() == [10] * 4
    events = np.arange(40) < 20
    strata = survival_strata(np.arange(40.0), events)
    assert {s: strata.count(s) for s in strata} == {
        (e, q): 5 for e in (True, False) for q in range(4)
    }
    assert len(survival_strata(np.arange(4.0), np.zeros(4, bool))) == 4
