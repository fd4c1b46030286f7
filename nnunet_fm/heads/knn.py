"""Nearest neighbours by cosine similarity, with the paper's tie rule (BrainDINO, section 4.5, kNN probing)."""

import numpy as np
from jaxtyping import Float, Integer

from nnunet_fm.internal.errors import InputError

PAPER_K = (1, 3, 5, 10, 20, 50)


def knn_predict(
    train: Float[np.ndarray, "n d"],
    labels: Integer[np.ndarray, " n"],
    test: Float[np.ndarray, "m d"],
    k: int,
) -> Integer[np.ndarray, " m"]:
    """Majority class of the `k` most similar training vectors.

    Of classes with equally many neighbours the one whose neighbours are more similar in sum wins,
    then the lowest.

    Raises:
        ValueError: `k` below 1 or above the number of training vectors.
    """
    if not 1 <= k <= len(train):
        raise InputError(f"k = {k} with {len(train)} training vectors; allowed: 1 to {len(train)}")
    similarity = _directions(test) @ _directions(train).T
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    of_class = np.eye(int(labels.max()) + 1)[labels[nearest]]
    votes = of_class.sum(1)
    weight = np.einsum("mkc,mk->mc", of_class, np.take_along_axis(similarity, nearest, axis=1))
    weight[votes < votes.max(1, keepdims=True)] = -np.inf
    return weight.argmax(1)


def _directions(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
