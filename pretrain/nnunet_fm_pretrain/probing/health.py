"""How much features vary: a collapsed encoder shows here, whatever its probes say."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_fm.internal.markdown import markdown_table
from nnunet_fm_pretrain.probing.linear_probes import Features

ROWS = 5000  # that singular values are computed of
SMALLEST = 1e-7  # added to the shares, as in RankMe


@dataclass(frozen=True)
class FeatureHealth:
    """The variation of some features.

    Attributes:
        features: name of the encoder.
        of: what a row is, e.g. `patches`.
        values: length of a row.
        effective_rank: RankMe (Garrido et al., ICML 2023): exp of the entropy of the singular
            values of the features, which are not centred; 1 if all rows are the same, at most
            `values` or rows.
        deviation: mean standard deviation of a value over the rows.
    """

    features: str
    of: str
    values: int
    effective_rank: float
    deviation: float


def feature_health(name: str, of: str, x: Features, seed: int = 0) -> FeatureHealth:
    """Measure features; of many rows, a sample.

    Args:
        name: of the encoder.
        of: what a row is.
        x: a row per subject or patch.
        seed: of the sample.
    """
    rows = np.random.default_rng(seed).permutation(len(x))[:ROWS]
    sampled = x[rows].astype(np.float64)
    singular = np.linalg.svd(sampled, compute_uv=False)
    shares = singular / max(singular.sum(), SMALLEST) + SMALLEST
    rank = float(np.exp(-(shares * np.log(shares)).sum()))
    return FeatureHealth(name, of, x.shape[1], rank, float(sampled.std(0).mean()))


def health_table(measured: Sequence[FeatureHealth]) -> str:
    """Format measurements as a Markdown table."""
    rows = [
        (h.of, h.features, h.values, f"{h.effective_rank:.1f}", f"{h.deviation:.3g}")
        for h in measured
    ]
    head = ("rows", "features", "values", "effective rank", "standard deviation")
    return markdown_table(head, rows)
