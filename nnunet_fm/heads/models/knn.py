"""Nearest neighbours by cosine similarity, with the paper's tie rule.

Source: BrainDINO, section 4.5, kNN probing.
"""

import numpy as np
from jaxtyping import Float, Integer

from nnunet_fm.heads.models.base import Model, Output, Vectors
from nnunet_fm.heads.targets import Targets
from nnunet_fm.internal.errors import InputError


class KnnModel(Model):
    """Majority class of the most similar training vectors.

    Args:
        k: number of neighbours.
        x: training vectors.
        targets: classes of these vectors.
    """

    def __init__(self, k: int, x: Vectors, targets: Targets) -> None:
        self._k = k
        self._x = x
        self._labels = targets.values.astype(int)
        self._classes = len(targets.classes)

    def predict(self, x: Vectors) -> Output:
        """Return 1 for the predicted class of each vector, 0 for the others."""
        return np.eye(self._classes)[knn_predict(self._x, self._labels, x, self._k)]


def knn_predict(
    train: Float[np.ndarray, "n d"],
    labels: Integer[np.ndarray, " n"],
    test: Float[np.ndarray, "m d"],
    k: int,
) -> Integer[np.ndarray, " m"]:
    """Predict the majority class of the `k` most similar training vectors.

    Of classes with equally many neighbours the one with the larger sum of similarities wins, then
    the one with the lowest number.

    Raises:
        ValueError: `k` below 1 or above the number of training vectors.
    """
    if not 1 <= k <= len(train):
        raise InputError(f"k = {k} with {len(train)} training vectors; allowed: 1 to {len(train)}")
    similarity = _unit_vectors(test) @ _unit_vectors(train).T
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    one_hot = np.eye(int(labels.max()) + 1)[labels[nearest]]
    votes = one_hot.sum(1)
    nearest_similarity = np.take_along_axis(similarity, nearest, axis=1)
    similarity_sum = np.einsum("mkc,mk->mc", one_hot, nearest_similarity)
    similarity_sum[votes < votes.max(1, keepdims=True)] = -np.inf
    return similarity_sum.argmax(1)


def _unit_vectors(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
