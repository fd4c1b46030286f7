"""Linear probes: ridge and logistic regression on frozen features, with intervals over subjects."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nnunet_fm.evaluation.classification import weighted_auc
from nnunet_fm.evaluation.intervals import (
    FEWEST_FOR_BCA,
    RESAMPLES,
    Bootstrap,
    Statistic,
    Weights,
)
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.markdown import markdown_table

Features = Float[np.ndarray, "n d"]
ALPHAS = tuple(10.0**e for e in range(-2, 6))
CS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
PATCH_RESAMPLES = 500  # each sorts all patches of the test patients
SAMPLED_PATCHES = 20_000
FEW_SUBJECTS = (
    f"Fewer than {FEWEST_FOR_BCA} subjects: limits of MAE and AP are Student's t limits, those of "
    "AUC bootstrap limits, which contain the true value less often than in 95 %."
)


@dataclass(frozen=True)
class ProbeResult:
    """One number of one probe.

    Attributes:
        features: name of the encoder, or of what it is compared with.
        target: what was predicted.
        metric: `MAE`, `AUC` or `AP`.
        value: of the metric.
        low: lower limit of the 95 % interval over subjects.
        high: upper limit.
        n: tested subjects.
    """

    features: str
    target: str
    metric: str
    value: float
    low: float
    high: float
    n: int


def regression_probe(
    name: str, target: str, x: Features, y: Sequence[float], tested: Sequence[int]
) -> ProbeResult:
    """Measure the mean absolute error of ridge regression, predicting each subject from all others.

    Args:
        name: of the features.
        target: of the quantity.
        x: a row per subject.
        y: the quantity.
        tested: rows that are predicted: the subjects that pretraining has not seen.
    """
    values = np.asarray(y, float)
    errors = []
    for row in tested:
        others = np.arange(len(values)) != row
        model = make_pipeline(StandardScaler(), RidgeCV(ALPHAS)).fit(x[others], values[others])
        errors.append(abs(float(model.predict(x[[row]])[0]) - values[row]))
    return _mean_error(name, target, np.array(errors))


def trivial_regression(target: str, y: Sequence[float], tested: Sequence[int]) -> ProbeResult:
    """Measure the mean absolute error of predicting the mean of all others."""
    values = np.asarray(y, float)
    errors = np.array([abs(np.delete(values, row).mean() - values[row]) for row in tested])
    return _mean_error("mean of the others", target, errors)


def _mean_error(name: str, target: str, errors: Float[np.ndarray, " n"]) -> ProbeResult:
    def mean(weights: Weights) -> Float[np.ndarray, " b"]:
        return weights @ errors / weights.sum(1)

    return _result(name, target, "MAE", len(errors), mean)


def classification_probe(
    name: str, target: str, x: Features, y: Sequence[str], tested: Sequence[int]
) -> ProbeResult:
    """Measure the area under the ROC curve of logistic regression for a target of two values.

    Subjects are predicted as in `regression_probe`.

    Raises:
        ValueError: the target does not have two values, both of them among the tested subjects.
    """
    classes = sorted(set(y))
    truth = np.array([classes.index(v) for v in y])
    if len(classes) != 2 or len(set(truth[list(tested)])) != 2:
        raise InputError(
            f"target {target!r} has the values {classes}; "
            "allowed: two, both among the tested subjects"
        )
    scores = []
    for row in tested:
        others = np.arange(len(truth)) != row
        scores.append(_logistic(x[others], truth[others]).decision_function(x[[row]])[0])
    tested_truth, tested_scores = truth[list(tested)], np.array(scores)

    def area(weights: Weights) -> Float[np.ndarray, " b"]:
        return weighted_auc(tested_truth, tested_scores, weights)

    return _result(name, target, "AUC", len(tested), area, tested_truth)


def _logistic(x: Features, y: np.ndarray) -> Any:
    """Fit logistic regression with the penalty of the best inner folds' log-likelihood.

    Classes are balanced: otherwise leaving one subject out moves the intercept against it, and
    noise gets an AUC of 0.
    """

    def model(c: float) -> Any:
        return make_pipeline(
            StandardScaler(), LogisticRegression(C=c, max_iter=2000, class_weight="balanced")
        )

    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    losses = []
    for c in CS:
        loss = 0.0
        for train, test in folds.split(x, y):
            inner = model(c).fit(x[train], y[train])
            margins = inner.decision_function(x[test]) * (2 * y[test] - 1)
            loss += float(np.logaddexp(0, -margins).sum())  # finite, unlike log(probability)
        losses.append(loss)
    best = CS[int(np.argmin(losses))]
    return model(best).fit(x, y)


def dense_probe(
    name: str,
    train: Sequence[tuple[Features, Shaped[np.ndarray, " n"]]],
    test: Sequence[tuple[Features, Shaped[np.ndarray, " n"]]],
    target: str = "lesion patches",
    seed: int = 0,
) -> ProbeResult:
    """Measure the average precision of logistic regression on patches.

    The interval is over test patients.

    Args:
        name: of the features.
        train: features and labels (0 or 1) of the patches of each training patient.
        test: features and labels of each test patient.
        target: what the labels mark.
        seed: of the draw of training patches.

    Raises:
        ValueError: the patches of the training or of the test patients are all labelled alike.
    """
    x, y = np.concatenate([p[0] for p in train]), np.concatenate([p[1] for p in train])
    for part, labelled in (("training", y), ("test", np.concatenate([p[1] for p in test]))):
        if labelled.min() == labelled.max():
            which = "every" if labelled.all() else "no"
            raise InputError(
                f"{target}: {which} patch of the {part} patients is at least half labelled, so the "
                "average precision is undefined; make patches cover less of the anatomy: a larger "
                "--size, or a smaller --spacing for volumes"
            )
    sampled = np.random.default_rng(seed).permutation(len(x))[:SAMPLED_PATCHES]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500)).fit(
        x[sampled], y[sampled]
    )
    labels = np.concatenate([labels for _, labels in test])
    scores = np.concatenate([model.decision_function(rows) for rows, _ in test])
    patient = np.concatenate([np.full(len(labels), n) for n, (_, labels) in enumerate(test)])

    def pooled(weights: Weights) -> Float[np.ndarray, " b"]:
        return np.array(
            [average_precision_score(labels, scores, sample_weight=w[patient]) for w in weights]
        )

    return _result(name, target, "AP", len(test), pooled, resamples=PATCH_RESAMPLES)


def _result(
    features: str,
    target: str,
    metric: str,
    subjects: int,
    statistic: Statistic,
    strata: Shaped[np.ndarray, " n"] | None = None,
    resamples: int | None = None,
) -> ProbeResult:
    """Compute a statistic of weighted subjects with its interval; a single subject has none."""
    value = float(statistic(np.ones((1, subjects)))[0])
    if subjects < 2:
        return ProbeResult(features, target, metric, value, value, value, subjects)
    bootstrap = Bootstrap(np.arange(subjects), strata, min(resamples or RESAMPLES, RESAMPLES))
    interval = bootstrap.interval(statistic)
    # of few subjects the limits are Student's t, which know no range
    largest = np.inf if metric == "MAE" else 1.0
    low, high = max(0.0, interval.low), min(largest, interval.high)
    return ProbeResult(features, target, metric, value, low, high, subjects)


def markdown(results: Sequence[ProbeResult]) -> str:
    """Format results as a Markdown table, a line per result."""
    rows = [
        (
            r.target,
            r.metric,
            r.features,
            f"{r.value:.3f}",
            f"{r.low:.3f} to {r.high:.3f}",
            r.n,
        )
        for r in results
    ]
    table = markdown_table(("target", "metric", "features", "value", "95 % interval", "n"), rows)
    has_few = any(1 < r.n < FEWEST_FOR_BCA for r in results)
    return f"{table}\n\n{FEW_SUBJECTS}" if has_few else table
