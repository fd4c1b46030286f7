"""Linear probes: ridge and logistic regression on frozen features, with intervals over subjects."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, Shaped
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nnunet_fm.internal.errors import InputError

Features = Float[np.ndarray, "n d"]
ALPHAS = tuple(10.0**e for e in range(-2, 6))
CS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
BOOTSTRAPS = 2000
SAMPLED_PATCHES = 20_000


@dataclass(frozen=True)
class ProbeResult:
    """One number: which features, what was asked, the metric, its 95 % bootstrap interval over `n` subjects."""

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
    """Mean absolute error of ridge regression, each tested subject predicted from all others.

    Args:
        name: of the features.
        target: of the quantity.
        x: a row per subject.
        y: the quantity.
        tested: rows that are predicted; the subjects that pretraining has not seen.
    """
    values = np.asarray(y, float)
    errors = []
    for row in tested:
        others = np.arange(len(values)) != row
        model = make_pipeline(StandardScaler(), RidgeCV(ALPHAS)).fit(x[others], values[others])
        errors.append(abs(float(model.predict(x[[row]])[0]) - values[row]))
    return _summary(name, target, "MAE", np.array(errors), lambda e: float(e.mean()))


def trivial_regression(target: str, y: Sequence[float], tested: Sequence[int]) -> ProbeResult:
    """Mean absolute error of predicting the mean of all others."""
    values = np.asarray(y, float)
    errors = np.array([abs(np.delete(values, row).mean() - values[row]) for row in tested])
    return _summary("mean of the others", target, "MAE", errors, lambda e: float(e.mean()))


def classification_probe(
    name: str, target: str, x: Features, y: Sequence[str], tested: Sequence[int]
) -> ProbeResult:
    """Area under the ROC curve of logistic regression for a target of two values, predicted as in `regression_probe`.

    Raises:
        ValueError: another number of values, or one only among the tested.
    """
    classes = sorted(set(y))
    truth = np.array([classes.index(v) for v in y])
    if len(classes) != 2 or len(set(truth[list(tested)])) != 2:
        raise InputError(
            f"target {target!r} has the values {classes}; allowed: two, both among the tested subjects"
        )
    scores = []
    for row in tested:
        others = np.arange(len(truth)) != row
        scores.append(_logistic(x[others], truth[others]).decision_function(x[[row]])[0])
    pairs = np.stack([truth[list(tested)], scores], axis=1)
    return _summary(name, target, "AUC", pairs, lambda p: float(roc_auc_score(p[:, 0], p[:, 1])))


def _logistic(x: Features, y: np.ndarray) -> Any:
    """Logistic regression; its penalty is chosen by the inner folds' log-likelihood.

    Classes are balanced: else leaving one subject out moves the intercept against it, and noise
    gets an AUC of 0.
    """

    def model(c: float) -> Any:
        return make_pipeline(
            StandardScaler(), LogisticRegression(C=c, max_iter=2000, class_weight="balanced")
        )

    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    losses = []
    for c in CS:
        likelihood = 0.0
        for train, test in folds.split(x, y):
            inner = model(c).fit(x[train], y[train])
            likelihood += float(
                inner.predict_log_proba(x[test])[np.arange(len(test)), y[test]].sum()
            )
        losses.append(-likelihood)
    best = CS[int(np.argmin(losses))]
    return model(best).fit(x, y)


def dense_probe(
    name: str,
    train: Sequence[tuple[Features, Shaped[np.ndarray, " n"]]],
    test: Sequence[tuple[Features, Shaped[np.ndarray, " n"]]],
    target: str = "lesion patches",
    seed: int = 0,
) -> ProbeResult:
    """Average precision of logistic regression on patches; the interval is over test patients.

    Args:
        name: of the features.
        train: features and labels (0 or 1) of the patches of each training patient.
        test: the same of each test patient.
        target: what the labels mark.
        seed: of the draw of training patches.
    """
    x, y = np.concatenate([p[0] for p in train]), np.concatenate([p[1] for p in train])
    chosen = np.random.default_rng(seed).permutation(len(x))[:SAMPLED_PATCHES]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500)).fit(
        x[chosen], y[chosen]
    )
    scored = [np.stack([labels, model.decision_function(rows)], axis=1) for rows, labels in test]

    def pooled(patients: Integer[np.ndarray, " p"]) -> float:
        both = np.concatenate([scored[int(p)] for p in patients])
        return float(average_precision_score(both[:, 0], both[:, 1]))

    return _summary(name, target, "AP", np.arange(len(test)), pooled, min(500, BOOTSTRAPS))


def _summary(
    features: str,
    target: str,
    metric: str,
    rows: np.ndarray,
    statistic: Callable[[np.ndarray], float],
    bootstraps: int | None = None,
) -> ProbeResult:
    """The statistic with its percentile bootstrap interval over rows; resamples of one class are left out."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(bootstraps or BOOTSTRAPS):
        sample = rows[rng.integers(len(rows), size=len(rows))]
        if metric != "AUC" or len(set(sample[:, 0])) == 2:
            drawn.append(statistic(sample))
    low, high = np.percentile(drawn, (2.5, 97.5))
    return ProbeResult(
        features, target, metric, statistic(rows), float(low), float(high), len(rows)
    )


def markdown(results: Sequence[ProbeResult]) -> str:
    """A table, a line per result."""
    lines = [
        "| target | metric | features | value | 95 % interval | n |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.target} | {r.metric} | {r.features} | {r.value:.3f} | {r.low:.3f} to {r.high:.3f} | {r.n} |"
        for r in results
    ]
    return "\n".join(lines)
