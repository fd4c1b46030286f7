"""Nearest neighbours against scikit-learn's."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from nnunet_fm.heads.models.knn import knn_predict


def test_neighbours_equal_scikit_learn_s_without_ties() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 90)
    train, test = rng.standard_normal((90, 8)) + labels[:, None], rng.standard_normal((50, 8)) + 0.5
    for k in (1, 3, 5, 9):
        theirs = KNeighborsClassifier(k, metric="cosine").fit(train, labels).predict(test)
        assert np.array_equal(knn_predict(train, labels, test, k), theirs)
    with pytest.raises(ValueError, match="k = 91 with 90 training vectors; allowed: 1 to 90"):
        knn_predict(train, labels, test, 91)


def test_ties_go_to_the_nearer_class() -> None:
    angles = np.array([0.3, 0.9, -0.4, -0.5])
    train, labels = np.stack([np.cos(angles), np.sin(angles)], 1), np.array([1, 1, 0, 0])
    query = np.array([[1.0, 0.0]])
    assert knn_predict(train, labels, query, 4).tolist() == [0]  # cos .3 + cos .9 < cos .4 + cos .5
    assert knn_predict(train, labels, query, 2).tolist() == [1]
    assert knn_predict(train[[0, 0]], np.array([1, 0]), query, 2).tolist() == [
        0
    ]  # all equal: the lowest class
