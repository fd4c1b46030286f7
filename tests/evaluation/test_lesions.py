"""Lesions found, missed, false, joined and too small."""

import numpy as np
import pytest

from nnunet_fm.evaluation.lesions import lesion_score


def boxes(*places: tuple[int, int]) -> np.ndarray:
    """Cubes of a size at a place on the diagonal."""
    mask = np.zeros((40, 40, 40), bool)
    for start, size in places:
        mask[(slice(start, start + size),) * 3] = True
    return mask


def test_lesions_found_missed_false_and_small() -> None:
    truth = boxes((1, 4), (10, 4), (20, 2))
    prediction = boxes((1, 4), (30, 4), (36, 2))
    score = lesion_score(
        prediction, truth, (1, 1, 1), smallest=10
    )  # 8 mm³ do not count, on either side
    assert (score.lesions, score.found, score.false) == (2, 1, 1)
    assert score.dice == pytest.approx(1 / 3)
    assert score.f1 == pytest.approx(2 / 4)
    every = lesion_score(prediction, truth, (1, 1, 1), smallest=0)
    assert (every.lesions, every.found, every.false) == (3, 1, 2)
    assert lesion_score(prediction, truth, (2, 2, 2), smallest=64).lesions == 3  # mm³, not voxels


def test_a_prediction_that_joins_lesions_counts_for_each_of_them() -> None:
    truth, prediction = boxes((1, 4), (8, 4)), boxes((1, 11))
    score = lesion_score(prediction, truth, (1, 1, 1), smallest=0)
    assert (score.lesions, score.found, score.false) == (2, 2, 0)
    assert score.dice == pytest.approx(2 * 64 / (64 + 11**3))


def test_small_true_lesions_excuse_what_touches_them() -> None:
    score = lesion_score(boxes((20, 4)), boxes((20, 2)), (1, 1, 1), smallest=10)
    assert (score.lesions, score.found, score.false, score.dice, score.f1) == (0, 0, 0, 1.0, 1.0)
