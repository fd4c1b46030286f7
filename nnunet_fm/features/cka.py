"""Linear centred kernel alignment (CKA) of two encoders, layer by layer.

Sources: BrainDINO, section 4.5; Kornblith et al., ICML 2019. The plain estimate is biased:
independent features of width 768 reach 0.6 at 500 subjects. It is reported because papers print it.
The debiased estimate (Song et al., JMLR 2012; Nguyen et al., ICLR 2021) is then near 0. A bootstrap
inflates both, because repeated subjects align with themselves, so the interval comes from a
jackknife over groups of subjects.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from nnunet_fm.features import FeatureCache, Table
from nnunet_fm.internal.errors import InputError

Vectors = Float[np.ndarray, "n d"]
Others = Float[np.ndarray, "m e"]  # features of the same subjects from another encoder
Gram = Float[np.ndarray, "n n"]
FEWEST_SUBJECTS, JACKKNIFE_GROUPS = 4, 20


@dataclass(frozen=True)
class Alignment:
    """CKA of a layer of one encoder and a layer of another, over `n` subjects.

    Attributes:
        first, second: encoders.
        first_layer, second_layer: blocks, counted from 0.
        cka: plain, biased estimate, as papers print it; 0 to 1.
        debiased: unbiased estimate; can be slightly negative.
        low, high: 95 % limits of `debiased`, from leaving out each of 20 groups of subjects.
        standardised: `debiased` of features scaled to unit variance; without scaling, one large
            dimension can decide the result.
        n: number of subjects; values of different `n` are not comparable, least of all `cka`.
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
    """Return the biased linear CKA, 0 to 1.

    Args:
        x: features of one encoder, one row per subject.
        y: features of the other, the same subjects in the same order.

    Raises:
        ValueError: different numbers of rows, fewer than 5, or constant features.
    """
    a, b = (_centre(gram) for gram in _grams(x, y))
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def debiased_cka(x: Vectors, y: Others) -> float:
    """Return CKA with the unbiased estimate of the Hilbert-Schmidt independence criterion.

    Raises:
        ValueError: as `linear_cka`.
    """
    return _debiased(*_grams(x, y))


def debiased_interval(x: Vectors, y: Others, level: float = 0.95) -> tuple[float, float]:
    """Return a normal interval of `debiased_cka` from a jackknife over 20 groups of subjects.

    Args:
        x: features of one encoder, one row per subject.
        y: features of the other, the same subjects in the same order.
        level: confidence level, 0 to 1.

    Raises:
        ValueError: as `linear_cka`.
    """
    a, b = _grams(x, y)
    count = len(x)
    groups = np.array_split(
        np.random.default_rng(0).permutation(count), min(JACKKNIFE_GROUPS, count)
    )
    values = []
    for group in groups:
        kept = np.setdiff1d(np.arange(count), group)
        values.append(_debiased(a[np.ix_(kept, kept)], b[np.ix_(kept, kept)]))
    share = (len(groups) - 1) / len(groups)
    deviation = np.sqrt(share * np.square(np.array(values) - np.mean(values)).sum())
    margin = float(stats.norm.ppf((1 + level) / 2) * deviation)
    estimate = _debiased(a, b)
    return estimate - margin, estimate + margin


def align(
    cache: FeatureCache,
    table: Table,
    first: str | None,
    second: str | None,
    layers: Sequence[int] | None = None,
) -> list[Alignment]:
    """Compare every cached layer of one encoder with every one of another.

    Args:
        cache: cache with the features of both.
        table: table of the subjects; the visits of a subject are averaged.
        first: encoder, as `FeatureCache.recipe` takes it.
        second: the other encoder.
        layers: blocks of both; all that are in the cache if None.

    Raises:
        FileNotFoundError, ValueError: see `FeatureCache.matrix`, or fewer than 5 subjects.
    """
    one, layers_of_one = _features_by_layer(cache, table, first, layers)
    other, layers_of_other = _features_by_layer(cache, table, second, layers)
    results = []
    for a, (subjects, x) in layers_of_one.items():
        for b, (other_subjects, y) in layers_of_other.items():
            if subjects != other_subjects:
                raise InputError(f"{one} and {other} hold different subjects of {table.file}")
            low, high = debiased_interval(x, y)
            results.append(
                Alignment(
                    first=one,
                    first_layer=a,
                    second=other,
                    second_layer=b,
                    cka=linear_cka(x, y),
                    debiased=debiased_cka(x, y),
                    low=low,
                    high=high,
                    standardised=debiased_cka(_standardise(x), _standardise(y)),
                    n=len(x),
                )
            )
    return results


def _features_by_layer(
    cache: FeatureCache, table: Table, encoder: str | None, layers: Sequence[int] | None
) -> tuple[str, dict[int, tuple[list[str], Vectors]]]:
    """Return an encoder's name, and subjects and features of each layer."""
    recipe = cache.recipe(encoder)
    features = {}
    for layer in layers or recipe.layers:
        names, x = cache.matrix(table, layer, recipe)
        features[layer] = _average_visits(table, names, x)
    return f"{recipe.name}-{recipe.identity()[:8]}", features


def _average_visits(
    table: Table, names: list[str], x: Vectors
) -> tuple[list[str], Float[np.ndarray, "s d"]]:
    """Average the visits of each subject, which are alike in every encoder."""
    subject_of = {row.name: row.subject for row in table.rows}
    subjects = [subject_of[name] for name in names]
    unique = list(dict.fromkeys(subjects))
    means = [x[[subject == one for subject in subjects]].mean(0) for one in unique]
    return unique, np.stack(means)


def _grams(x: Vectors, y: Others) -> tuple[Gram, Gram]:
    """Check the features of two encoders and return their Gram matrices."""
    if len(x) != len(y) or len(x) <= FEWEST_SUBJECTS:
        raise InputError(
            f"{len(x)} and {len(y)} subjects; allowed: the same ones, more than {FEWEST_SUBJECTS}"
        )
    for features in (x, y):
        if not np.ptp(features, axis=0).any():
            raise InputError(
                "the features are the same for every subject; there is nothing to align"
            )
    return _gram(x), _gram(y)


def _gram(x: Vectors) -> Gram:
    x = x.astype(np.float64)
    centred = x - x.mean(0)
    product: np.ndarray = centred @ centred.T
    return product


def _centre(gram: Gram) -> Gram:
    return gram - gram.mean(0) - gram.mean(1, keepdims=True) + gram.mean()


def _debiased(a: Gram, b: Gram) -> float:
    return _hsic(a, b) / float(np.sqrt(abs(_hsic(a, a) * _hsic(b, b))))


def _hsic(a: Gram, b: Gram) -> float:
    """Return the unbiased estimate of HSIC (Song et al., equation 5)."""
    n = len(a)
    k, m = a - np.diag(np.diag(a)), b - np.diag(np.diag(b))
    sums = (
        (k * m).sum()
        + k.sum() * m.sum() / ((n - 1) * (n - 2))
        - 2 * (k.sum(0) @ m.sum(1)) / (n - 2)
    )
    return float(sums / (n * (n - 3)))


def _standardise(x: Vectors) -> Vectors:
    deviation = x.std(0)
    return (x - x.mean(0)) / np.where(deviation > 0, deviation, 1)
