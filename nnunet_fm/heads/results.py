"""Numbers of a task and their tables."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_fm.internal.markdown import markdown_table

LOGRANK = "log-rank p"


@dataclass(frozen=True)
class Result:
    """One number of one model.

    Attributes:
        task, encoder, model: what was predicted, from whose features, how.
        ratio, seed: share of the training subjects; of the subset and of the head.
        metric, value: e.g. AUC.
        low, high, interval: 95 % limits over the tested cases, and how they were found.
        n_train, n_test: cases.
        tested: by the column `split`, or by how many folds.
        protocol: `default` or `paper`.
        selection: which step of training was taken, and by what.
        leakage: tested subjects that were found elsewhere and allowed.
    """

    task: str
    encoder: str
    model: str
    ratio: float
    seed: int
    metric: str
    value: float
    low: float
    high: float
    interval: str
    n_train: int
    n_test: int
    tested: str
    protocol: str = "default"
    selection: str = "last step"
    leakage: str = ""


def markdown(results: Sequence[Result]) -> str:
    """A line per model, metric and ratio: mean over seeds, their range, and the mean limits. No mean of p-values."""
    head = [
        "model",
        "metric",
        "ratio",
        "n train",
        "n test",
        "mean of seeds",
        "lowest",
        "highest",
        "95 % of the cases",
    ]
    rows = []
    groups: dict[tuple[str, str, float], list[Result]] = {}
    for r in (r for r in results if r.metric != LOGRANK):
        groups.setdefault((r.model, r.metric, r.ratio), []).append(r)
    for (model, metric, ratio), group in groups.items():
        values = np.array([r.value for r in group])
        limits = f"{np.mean([r.low for r in group]):.3g} to {np.mean([r.high for r in group]):.3g}"
        numbers = (f"{v:.3g}" for v in (values.mean(), values.min(), values.max()))
        rows.append(
            (model, metric, f"{ratio:g}", group[0].n_train, group[0].n_test, *numbers, limits)
        )
    leaks = sorted({r.leakage for r in results if r.leakage})
    return "\n".join(
        [markdown_table(head, rows), *(f"\nLeakage allowed: {leak}" for leak in leaks)]
    )
