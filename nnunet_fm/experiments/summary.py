"""Means, intervals and paired tests over the cases, as tables and figures show them (BrainDINO, sections 2.2, 4.5)."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from jaxtyping import Float

from nnunet_fm.evaluation.intervals import Bootstrap
from nnunet_fm.evaluation.paired_tests import (
    cohen_dz,
    holm,
    mean_permutation_p,
    rank_biserial,
    wilcoxon_p,
)
from nnunet_fm.experiments.run_scores import ScoredRun
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown

Values = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Metric:
    """A column of the scores: how it is called, which way is better, how many digits."""

    key: str
    name: str
    higher_is_better: bool = True
    digits: int = 3


METRICS = (
    Metric("dice", "Dice"),
    Metric("hd95_mm", "HD95 (mm)", higher_is_better=False, digits=1),
    Metric("surface_dice", "surface Dice"),
    Metric("lesion_dice", "lesion-wise Dice"),
    Metric("lesion_f1", "lesion F1"),
)


@dataclass(frozen=True)
class Summary:
    """One encoder at one ratio.

    Attributes:
        dataset, encoder, ratio, region, metric: what.
        mean, sd: over the cases, each the mean of its seeds (ddof 1; NaN with one case).
        low, high: 95 % BCa limits of the mean over the cases; NaN with one case.
        sd_seeds: of the seeds' means; NaN with one seed.
        cases, seeds, train_cases: how many.
    """

    dataset: str
    encoder: str
    ratio: float
    region: str
    metric: str
    mean: float
    sd: float
    low: float
    high: float
    sd_seeds: float
    cases: int
    seeds: int
    train_cases: int


@dataclass(frozen=True)
class Comparison:
    """Another encoder against the reference, at one ratio, over the seeds and folds that both have.

    Attributes:
        dataset, ratio, region, metric: what.
        reference, other: encoders.
        difference, low, high: mean over the cases of other minus reference, with 95 % BCa limits.
        wilcoxon_p: signed-rank test on the cases.
        permutation_p: of the mean difference, by swaps within cases.
        wilcoxon_holm, permutation_holm: adjusted over all ratios and encoders of a dataset, region
        and metric. rank_biserial, cohen_dz: effect sizes; above 0 where the other is larger. cases,
        seeds: how many.
    """

    dataset: str
    ratio: float
    region: str
    metric: str
    reference: str
    other: str
    difference: float
    low: float
    high: float
    wilcoxon_p: float
    permutation_p: float
    wilcoxon_holm: float
    permutation_holm: float
    rank_biserial: float
    cohen_dz: float
    cases: int
    seeds: int


@dataclass(frozen=True)
class Group:
    """The runs of one encoder at one ratio: seeds and folds."""

    dataset: str
    encoder: str
    ratio: float
    runs: list[ScoredRun]

    @property
    def seeds(self) -> list[int]:
        """Seeds for which there are runs."""
        return sorted({r.run.seed for r in self.runs})

    @property
    def trainings(self) -> set[tuple[int, int]]:
        """Seed and fold of each run."""
        return {(r.run.seed, r.run.fold) for r in self.runs}

    @property
    def regions(self) -> list[str]:
        """As the scores have them."""
        return list(dict.fromkeys(s.region for s in self.runs[0].scores))

    def by_case(
        self, region: str, metric: str, trainings: Collection[tuple[int, int]] | None = None
    ) -> dict[str, float]:
        """Mean over the seeds of each case, sorted by case; of these trainings (seed, fold) only, all if None."""
        values: dict[str, list[float]] = {}
        for run in self.runs:
            if trainings is None or (run.run.seed, run.run.fold) in trainings:
                for score in run.scores:
                    if score.region == region:
                        values.setdefault(score.case, []).append(getattr(score, metric))
        return {case: float(np.mean(values[case])) for case in sorted(values)}


def groups(scored: Sequence[ScoredRun]) -> list[Group]:
    """By dataset, ratio and encoder; encoders in the order in which they came."""
    found: dict[tuple[str, float, str], list[ScoredRun]] = {}
    for s in scored:
        found.setdefault((s.run.dataset, s.run.ratio, s.run.encoder), []).append(s)
    place = {encoder: n for n, encoder in enumerate(dict.fromkeys(s.run.encoder for s in scored))}
    ordered = sorted(found, key=lambda k: (k[0], k[1], place[k[2]]))
    return [
        Group(dataset, encoder, ratio, found[dataset, ratio, encoder])
        for dataset, ratio, encoder in ordered
    ]


def summarise(found: Sequence[Group]) -> list[Summary]:
    """Means and intervals of every group, region and metric."""
    return [_summary(g, region, m) for g in found for region in g.regions for m in METRICS]


def _summary(group: Group, region: str, metric: Metric) -> Summary:
    values = group.by_case(region, metric.key)
    array = np.array(list(values.values()))
    low, high = limits_of_mean(array)
    by_seed = ([t for t in group.trainings if t[0] == seed] for seed in group.seeds)
    of_seeds = [
        np.mean(list(group.by_case(region, metric.key, trainings).values()))
        for trainings in by_seed
    ]
    return Summary(
        dataset=group.dataset,
        encoder=group.encoder,
        ratio=group.ratio,
        region=region,
        metric=metric.key,
        mean=float(array.mean()),
        sd=_deviation(array),
        low=low,
        high=high,
        sd_seeds=_deviation(np.array(of_seeds)),
        cases=len(array),
        seeds=len(group.seeds),
        train_cases=max(r.train_cases for r in group.runs),
    )


def _deviation(values: Values) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def limits_of_mean(values: Values) -> tuple[float, float]:
    """95 % BCa limits over the cases; NaN with one case."""
    if len(values) < 2:
        return float("nan"), float("nan")
    interval = Bootstrap(np.arange(len(values))).interval(
        lambda weights: weights @ values / weights.sum(1)
    )
    return interval.low, interval.high


def compare(
    found: Sequence[Group], encoders: Sequence[str], reference: str | None = None
) -> list[Comparison]:
    """Every encoder against the reference, at every ratio that both have.

    Args:
        found: groups.
        encoders: in their order, finished or not.
        reference: one of them; the first that a dataset has if None.

    Raises:
        ValueError: unknown reference.
    """
    if reference is not None and reference not in encoders:
        raise InputError(unknown("encoder", reference, encoders))
    comparisons: list[Comparison] = []
    for _, of_dataset in _grouped(found, lambda g: g.dataset):
        base = reference or min((g.encoder for g in of_dataset), key=list(encoders).index)
        for _, of_ratio in _grouped(of_dataset, lambda g: g.ratio):
            bases = [g for g in of_ratio if g.encoder == base]
            comparisons += [
                c for b in bases for g in of_ratio if g.encoder != base for c in _compare(b, g)
            ]
    return _adjusted(comparisons)


def _grouped(
    found: Sequence[Group], key: Callable[[Group], object]
) -> Iterator[tuple[object, list[Group]]]:
    return ((k, list(g)) for k, g in groupby(found, key=key))


def _compare(base: Group, other: Group) -> Iterator[Comparison]:
    """One after the other, region by region."""
    shared = base.trainings & other.trainings
    for region in base.regions if shared else ():
        for metric in METRICS:
            sides = [g.by_case(region, metric.key, shared) for g in (base, other)]
            yield _comparison(base, other, region, metric, sides, len({seed for seed, _ in shared}))


def _comparison(
    base: Group,
    other: Group,
    region: str,
    metric: Metric,
    sides: Sequence[dict[str, float]],
    seeds: int,
) -> Comparison:
    one, two = (np.array(list(side.values())) for side in sides)
    low, high = limits_of_mean(two - one)
    enough = len(one) > 1
    wilcoxon = wilcoxon_p(one, two) if enough else float("nan")
    swaps = mean_permutation_p(one, two) if enough else float("nan")
    return Comparison(
        dataset=base.dataset,
        ratio=base.ratio,
        region=region,
        metric=metric.key,
        reference=base.encoder,
        other=other.encoder,
        difference=float((two - one).mean()),
        low=low,
        high=high,
        wilcoxon_p=wilcoxon,
        permutation_p=swaps,
        wilcoxon_holm=wilcoxon,
        permutation_holm=swaps,
        rank_biserial=rank_biserial(one, two),
        cohen_dz=cohen_dz(one, two),
        cases=len(one),
        seeds=seeds,
    )


def _adjusted(found: Sequence[Comparison]) -> list[Comparison]:
    """Holm over the ratios and encoders of each dataset, region and metric; a test with one case is none."""
    families: dict[tuple[str, str, str], list[int]] = {}
    for n, c in enumerate(found):
        if np.isfinite(c.wilcoxon_p):
            families.setdefault((c.dataset, c.region, c.metric), []).append(n)
    adjusted = list(found)
    for members in families.values():
        wilcoxon, swaps = (
            holm([getattr(found[n], k) for n in members]) for k in ("wilcoxon_p", "permutation_p")
        )
        for n, w, s in zip(members, wilcoxon, swaps, strict=True):
            adjusted[n] = replace(found[n], wilcoxon_holm=float(w), permutation_holm=float(s))
    return adjusted
