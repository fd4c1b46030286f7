"""Linear centred kernel alignment of two encoders, layer by layer (BrainDINO, 4.5; Kornblith et al., ICML 2019).

The plain estimate is biased: independent features of width 768 reach 0.6 at 500 subjects. It stands
here because papers print it; the debiased one (Song et al., JMLR 2012; Nguyen et al., ICLR 2021) is
near 0 then. A bootstrap inflates both, as doubled subjects align with themselves: the interval
comes from leaving subjects out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from nnunet_fm.features import FeatureCache, Table
from nnunet_fm.internal.errors import InputError

Vectors = Float[np.ndarray, "n d"]
Others = Float[np.ndarray, "m e"]  # of another encoder, of the same subjects
Gram = Float[np.ndarray, "n n"]
FEWEST, GROUPS = 4, 20


@dataclass(frozen=True)
class Alignment:
    """Of a layer of one encoder and one of another, over `n` subjects.

    Attributes:
        first, second: encoders.
        first_layer, second_layer: blocks, 0-based.
        cka: the plain, biased estimate, as papers print it.
        debiased: the unbiased one; can be slightly negative.
        low, high: 95 % limits of the debiased one, from leaving out each of 20 groups of subjects.
        standardised: debiased, of features of unit variance: without it a single large dimension
            decides.
        n: subjects; values of different n cannot be compared with each other (`cka` most of all).
    """

    first: str
    first_layer: int
    second: str
    second_layer: int
    cka: float
    debiased: float
    low: float
    high: float
    standardised: float
    n: int


def linear_cka(x: Vectors, y: Others) -> float:
    """Biased linear CKA, 0 to 1.

    Args:
        x: features of one encoder, a row per subject.
        y: of the other, the same subjects in the same order.

    Raises:
        ValueError: other numbers of rows, fewer than 4, or constant features.
    """
    a, b = (_centred(_gram(v)) for v in _checked(x, y))
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def debiased_cka(x: Vectors, y: Others) -> float:
    """CKA with the unbiased estimate of the Hilbert-Schmidt independence criterion.

    Raises:
        ValueError: as `linear_cka`.
    """
    a, b = (_gram(v) for v in _checked(x, y))
    return _debiased(a, b)


def debiased_interval(x: Vectors, y: Others, level: float = 0.95) -> tuple[float, float]:
    """Normal interval of `debiased_cka`, its spread from a jackknife over 20 groups of subjects."""
    a, b = (_gram(v) for v in _checked(x, y))
    count = len(x)
    groups = np.array_split(np.random.default_rng(0).permutation(count), min(GROUPS, count))
    values = []
    for group in groups:
        kept = np.setdiff1d(np.arange(count), group)
        values.append(_debiased(a[np.ix_(kept, kept)], b[np.ix_(kept, kept)]))
    share = (len(groups) - 1) / len(groups)
    half = float(
        stats.norm.ppf((1 + level) / 2)
        * np.sqrt(share * np.square(np.array(values) - np.mean(values)).sum())
    )
    middle = _debiased(a, b)
    return middle - half, middle + half


def align(
    cache: FeatureCache,
    table: Table,
    first: str | None,
    second: str | None,
    layers: Sequence[int] | None = None,
) -> list[Alignment]:
    """Every kept layer of one encoder with every one of another.

    Args:
        cache: with the features of both.
        table: of the subjects; their visits are averaged.
        first: encoder, see `FeatureCache.recipe`.
        second: the other.
        layers: blocks of both; all that are kept if None.

    Raises:
        FileNotFoundError, ValueError: see `FeatureCache.matrix`, or fewer than 5 subjects.
    """
    sides = []
    for name in (first, second):
        recipe = cache.recipe(name)
        chosen = layers or recipe.layers
        found = {
            layer: _of_subjects(table, *cache.matrix(table, layer, recipe)) for layer in chosen
        }
        sides.append((f"{recipe.name}-{recipe.identity()[:8]}", found))
    (one, of_one), (other, of_other) = sides
    results = []
    for a, (names, x) in of_one.items():
        for b, (others, y) in of_other.items():
            if names != others:
                raise InputError(f"{one} and {other} hold different subjects of {table.file}")
            low, high = debiased_interval(x, y)
            unit = debiased_cka(_standardised(x), _standardised(y))
            results.append(
                Alignment(
                    one, a, other, b, linear_cka(x, y), debiased_cka(x, y), low, high, unit, len(x)
                )
            )
    return results


def _of_subjects(
    table: Table, names: list[str], x: Vectors
) -> tuple[list[str], Float[np.ndarray, "s d"]]:
    """Mean over the visits of each subject: visits of one subject are alike in every encoder."""
    subject = {row.name: row.subject for row in table.rows}
    known = list(dict.fromkeys(subject[n] for n in names))
    return known, np.stack([x[[subject[n] == s for n in names]].mean(0) for s in known])


def _checked(x: Vectors, y: Others) -> tuple[Vectors, Others]:
    if len(x) != len(y) or len(x) <= FEWEST:
        raise InputError(
            f"{len(x)} and {len(y)} subjects; allowed: the same ones, more than {FEWEST}"
        )
    for v in (x, y):
        if not np.ptp(v, axis=0).any():
            raise InputError(
                "the features are the same for every subject; there is nothing to align"
            )
    return x.astype(np.float64), y.astype(np.float64)


def _gram(x: Vectors) -> Gram:
    centred = x - x.mean(0)
    product: np.ndarray = centred @ centred.T
    return product


def _centred(gram: Gram) -> Gram:
    return gram - gram.mean(0) - gram.mean(1, keepdims=True) + gram.mean()


def _debiased(a: Gram, b: Gram) -> float:
    return _hsic(a, b) / float(np.sqrt(abs(_hsic(a, a) * _hsic(b, b))))


def _hsic(a: Gram, b: Gram) -> float:
    """Unbiased estimate (Song et al., equation 5)."""
    n = len(a)
    k, m = a - np.diag(np.diag(a)), b - np.diag(np.diag(b))
    sums = (
        (k * m).sum()
        + k.sum() * m.sum() / ((n - 1) * (n - 2))
        - 2 * (k.sum(0) @ m.sum(1)) / (n - 2)
    )
    return float(sums / (n * (n - 3)))


def _standardised(x: Vectors) -> Vectors:
    deviation = x.std(0)
    return (x - x.mean(0)) / np.where(deviation > 0, deviation, 1)
