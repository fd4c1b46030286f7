"""Metrics of classifiers: macro AUC, DeLong's test and interval, Youden's threshold.

Source: BrainDINO, section 4.5.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy import stats
from scipy.special import expit

from nnunet_fm.evaluation.intervals import Weights
from nnunet_fm.internal.errors import InputError

Labels = Integer[np.ndarray, " n"]
Scores = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class DeLong:
    """DeLong's test of two correlated areas under the ROC curve.

    Attributes:
        difference: second area minus the first.
        standard_error: standard error of the difference.
        p: two-sided p.
    """

    difference: float
    standard_error: float
    p: float


def auc(truth: Labels | Bool[np.ndarray, " n"], scores: Scores) -> float:
    """Compute the area under the ROC curve; ties count half.

    Args:
        truth: class of each case, 0 or 1.
        scores: scores that are larger for class 1.

    Raises:
        ValueError: one class only.
    """
    positive = _positive(truth)
    ranks = stats.rankdata(scores)
    count = positive.sum()
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (~positive).sum()))


def macro_auc(truth: Labels, probabilities: Float[np.ndarray, "n k"]) -> float:
    """Average the AUC of each class against the rest; with two classes, compute the plain AUC.

    Args:
        truth: class number of each case.
        probabilities: probability of each class; rows sum to 1.

    Raises:
        ValueError: a class without a case, or no probabilities (rows must sum to 1).
    """
    classes = probabilities.shape[1]
    if not np.allclose(probabilities.sum(1), 1, atol=1e-4):
        raise InputError(
            "rows do not sum to 1; one-against-rest areas need probabilities, not raw outputs"
        )
    absent = sorted(set(range(classes)) - set(truth.tolist()))
    if absent:
        raise InputError(
            f"no case of class {absent}; the macro AUC needs every class among the tested cases"
        )
    return float(weighted_macro_auc(truth, probabilities, np.ones((1, len(truth))))[0])


def weighted_auc(
    truth: Labels | Bool[np.ndarray, " n"],
    scores: Scores,
    weights: Weights,
    fold: Labels | None = None,
) -> Float[np.ndarray, " b"]:
    """Compute `auc` of weighted cases, for many sets of weights at once.

    Args:
        truth: class of each case, 0 or 1.
        scores: scores that are larger for class 1.
        weights: how often each case counts.
        fold: cross-validation fold of each case; cases are compared only within a fold, because
            the scores of two models have no common scale.

    Returns:
        The area for each set of weights; NaN where the weights leave no pair to compare.

    Raises:
        ValueError: no fold has both classes.
    """
    hits = np.zeros(len(weights))
    pairs = np.zeros(len(weights))
    for number in (0,) if fold is None else np.unique(fold):
        rows = np.arange(len(truth)) if fold is None else np.flatnonzero(fold == number)
        rows = rows[np.argsort(scores[rows], kind="stable")]
        ordered = scores[rows]
        positive = truth[rows].astype(bool)
        # where each group of equal scores starts
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        of_rows = weights[:, rows]
        ones = of_rows * positive
        zeros = of_rows - ones
        if len(starts) < len(rows):
            ones = np.add.reduceat(ones, starts, axis=1)
            zeros = np.add.reduceat(zeros, starts, axis=1)
        lower_or_equal = np.einsum("bi,bi->b", ones, zeros.cumsum(1))
        hits += lower_or_equal - np.einsum("bi,bi->b", ones, zeros) / 2
        pairs += ones.sum(1) * zeros.sum(1)
    if not pairs.any():
        raise InputError("no fold has cases of both classes; an ROC curve needs both")
    return np.divide(hits, pairs, out=np.full_like(hits, np.nan), where=pairs > 0)


def weighted_macro_auc(
    truth: Labels, scores: Float[np.ndarray, "n k"], weights: Weights, fold: Labels | None = None
) -> Float[np.ndarray, " b"]:
    """Average `weighted_auc` of each class against the rest; with two classes, of the second."""
    classes = range(scores.shape[1]) if scores.shape[1] > 2 else (1,)
    areas = [weighted_auc(truth == c, scores[:, c], weights, fold) for c in classes]
    return np.mean(areas, axis=0)


def accuracy(truth: Labels, probabilities: Float[np.ndarray, "n k"]) -> float:
    """Compute the share of cases whose most probable class is the true one."""
    return float((probabilities.argmax(1) == truth).mean())


def youden_threshold(truth: Labels, scores: Scores) -> float:
    """Find the score at and above which sensitivity + specificity - 1 is largest.

    Of equally good scores the highest is taken. Choose it on training folds: chosen on the tested
    cases it is biased in favour of the classifier.

    Raises:
        ValueError: one class only.
    """
    positive = _positive(truth)
    thresholds = np.unique(scores)[::-1]
    above = scores[None] >= thresholds[:, None]
    return float(thresholds[np.argmax(above[:, positive].mean(1) - above[:, ~positive].mean(1))])


def delong(truth: Labels, first: Scores, second: Scores) -> DeLong:
    """Test the areas of two scores of the same cases after DeLong et al., Biometrics 1988.

    The ranks are computed as by Sun and Xu, 2014. With a single case of a class its variance is
    unknown: standard error and p are NaN.

    Raises:
        ValueError: one class only.
    """
    areas, covariance = _structural(truth, np.stack([first, second]))
    difference = float(areas[1] - areas[0])
    if not np.isfinite(covariance).all():
        return DeLong(difference, float("nan"), float("nan"))
    error = float(np.sqrt(max(0.0, covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])))
    p = 2 * stats.norm.sf(abs(difference) / error) if error else float(difference == 0)
    return DeLong(difference, error, float(p))


def delong_interval(truth: Labels, scores: Scores, level: float = 0.95) -> tuple[float, float]:
    """Compute a confidence interval of the AUC from DeLong's variance, on the logit scale.

    At an area of 0 or 1 the variance is 0, and the interval is (0, 1). With a single case of a
    class the limits are NaN.
    """
    areas, covariance = _structural(truth, scores[None])
    area = float(areas[0])
    if not 0 < area < 1:
        return 0.0, 1.0
    half = stats.norm.ppf((1 + level) / 2) * np.sqrt(covariance[0, 0]) / (area * (1 - area))
    logit = np.log(area / (1 - area))
    return float(expit(logit - half)), float(expit(logit + half))


def _structural(
    truth: Labels, scores: Float[np.ndarray, "m n"]
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, "m m"]]:
    """Compute areas and their covariance from the structural components."""
    positive = _positive(truth)
    m = int(positive.sum())
    n = int((~positive).sum())
    together = np.stack([stats.rankdata(s) for s in scores])
    among_positive = np.stack([stats.rankdata(s[positive]) for s in scores])
    among_negative = np.stack([stats.rankdata(s[~positive]) for s in scores])
    of_positive = (together[:, positive] - among_positive) / n
    of_negative = 1 - (together[:, ~positive] - among_negative) / m
    return of_positive.mean(1), _covariance(of_positive) / m + _covariance(of_negative) / n


def _covariance(components: Float[np.ndarray, "m n"]) -> Float[np.ndarray, "m m"]:
    """Compute the covariance of scores over cases; NaN with a single case."""
    if components.shape[1] < 2:
        return np.full((len(components), len(components)), np.nan)
    return np.atleast_2d(np.cov(components))


def _positive(truth: Labels | Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Return which cases are of class 1.

    Raises:
        ValueError: one class only.
    """
    positive = truth.astype(bool)
    if positive.all() or not positive.any():
        raise InputError(f"all {len(truth)} cases are of one class; an ROC curve needs both")
    return positive
