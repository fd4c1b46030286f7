"""Means, intervals and paired tests over the cases, as tables and figures show them.

Source: BrainDINO, sections 2.2 and 4.5.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from nnunet_fm.evaluation.intervals import mean_limits
from nnunet_fm.evaluation.paired_tests import (
    adjust_by_family,
    cohen_dz,
    mean_permutation_p,
    rank_biserial,
    wilcoxon_p,
)
from nnunet_fm.experiments.encoder_runs import EncoderRuns, shared_keys
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown
from nnunet_fm.nnunet.splits import SEEN

Values = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Metric:
    """A column of the scores.

    Attributes:
        key: its field in `CaseScore`.
        name: its name in tables and figures.
        higher_is_better: which way is better.
        digits: decimals that are shown.
    """

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
    """A metric of one encoder at one ratio, over the cases.

    The value of a case is the mean of its seeds; a subset seed with two training seeds counts as
    two seeds.

    Attributes:
        dataset: full name of the dataset.
        encoder: name of the encoder.
        ratio: share of the training cases.
        region: name of the region.
        metric: key of the metric.
        mean: mean over the cases.
        sd: standard deviation over the cases (ddof 1); NaN with one case.
        low: lower 95 % limit of the mean; NaN with one case.
        high: upper limit.
        sd_seeds: standard deviation of the seeds' means; NaN with one seed.
        cases: number of cases.
        seeds: number of seeds.
        train_cases: number of training cases; 0 if unknown.
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
class PairedComparison:
    """An encoder compared with the reference at one ratio, over the seeds and folds that both have.

    Attributes:
        dataset: full name of the dataset.
        ratio: share of the training cases.
        region: name of the region.
        metric: key of the metric.
        reference: name of the reference encoder.
        other: name of the other encoder.
        difference: mean over the cases of other minus reference.
        low: lower 95 % limit of the difference.
        high: upper limit.
        wilcoxon_p: signed-rank test over the cases.
        permutation_p: test of the mean difference, by swaps within cases.
        wilcoxon_holm: adjusted over all ratios and encoders of a dataset, region and metric.
        permutation_holm: adjusted in the same way.
        rank_biserial: effect size; above 0 where the other is larger.
        cohen_dz: effect size; above 0 where the other is larger.
        cases: number of cases.
        seeds: number of seeds.
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


def summarise(groups: Sequence[EncoderRuns]) -> list[Summary]:
    """Compute means and intervals of every group, region and metric."""
    return [
        _summary(group, region, metric)
        for group in groups
        for region in group.regions
        for metric in METRICS
    ]


def _summary(group: EncoderRuns, region: str, metric: Metric) -> Summary:
    values = np.array(list(group.by_case(region, metric.key).values()))
    low, high = mean_limits(values)
    seed_means = []
    for repeat in group.repeats:
        keys = [key for key in group.keys if key.repeat == repeat]
        seed_means.append(np.mean(list(group.by_case(region, metric.key, keys).values())))
    return Summary(
        dataset=group.dataset,
        encoder=group.encoder,
        ratio=group.ratio,
        region=region,
        metric=metric.key,
        mean=float(values.mean()),
        sd=_deviation(values),
        low=low,
        high=high,
        sd_seeds=_deviation(np.array(seed_means)),
        cases=len(values),
        seeds=len(group.repeats),
        train_cases=group.train_cases,
    )


def _deviation(values: Values) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def train_cases_by_ratio(rows: Iterable[EncoderRuns | Summary]) -> dict[float, int]:
    """Return the number of training cases of each ratio; 0 if unknown or not the same for all."""
    found: dict[float, set[int]] = {}
    for row in rows:
        found.setdefault(row.ratio, set()).add(row.train_cases)
    return {r: min(cases) if len(cases) == 1 else 0 for r, cases in found.items()}


def compare_encoders(
    groups: Sequence[EncoderRuns], encoders: Sequence[str], reference: str | None = None
) -> list[PairedComparison]:
    """Compare every encoder with the reference, at every ratio that both have.

    Args:
        groups: the scored runs.
        encoders: names in their order, finished or not.
        reference: one of them; if None, the first that a dataset has.

    Raises:
        ValueError: unknown reference.
    """
    if reference is not None and reference not in encoders:
        raise InputError(unknown("encoder", reference, encoders))
    comparisons: list[PairedComparison] = []
    for dataset in dict.fromkeys(group.dataset for group in groups):
        of_dataset = [group for group in groups if group.dataset == dataset]
        base = reference or _first_encoder(of_dataset, list(encoders))
        references = {group.ratio: group for group in of_dataset if group.encoder == base}
        for group in of_dataset:
            if group.encoder != base and group.ratio in references:
                comparisons += _compare(references[group.ratio], group)
    return _adjust(comparisons)


def _first_encoder(groups: Sequence[EncoderRuns], encoders: list[str]) -> str:
    """Return the first encoder of some groups; one that saw its validation cases comes last."""
    unseen = [group.encoder for group in groups if SEEN not in group.encoder]
    return min(unseen or [group.encoder for group in groups], key=encoders.index)


def _compare(reference: EncoderRuns, other: EncoderRuns) -> Iterator[PairedComparison]:
    """Compare region by region and metric by metric; nothing without a common seed and fold."""
    of_reference, of_other = shared_keys(reference, other)
    if not of_reference:
        return
    seeds = min(len({key.repeat for key in keys}) for keys in (of_reference, of_other))
    for region in reference.regions:
        for metric in METRICS:
            first = reference.by_case(region, metric.key, of_reference)
            second = other.by_case(region, metric.key, of_other)
            yield _comparison(
                reference,
                other,
                (region, metric.key),
                np.array(list(first.values())),
                np.array(list(second.values())),
                seeds,
            )


def _comparison(
    reference: EncoderRuns,
    other: EncoderRuns,
    column: tuple[str, str],
    first: Values,
    second: Values,
    seeds: int,
) -> PairedComparison:
    """Compare the values of one column (region, metric); a test needs two cases, else p is NaN."""
    low, high = mean_limits(second - first)
    wilcoxon = permutation = float("nan")
    if len(first) > 1:
        wilcoxon = wilcoxon_p(first, second)
        permutation = mean_permutation_p(first, second)
    return PairedComparison(
        dataset=reference.dataset,
        ratio=reference.ratio,
        region=column[0],
        metric=column[1],
        reference=reference.encoder,
        other=other.encoder,
        difference=float((second - first).mean()),
        low=low,
        high=high,
        wilcoxon_p=wilcoxon,
        permutation_p=permutation,
        wilcoxon_holm=wilcoxon,
        permutation_holm=permutation,
        rank_biserial=rank_biserial(first, second),
        cohen_dz=cohen_dz(first, second),
        cases=len(first),
        seeds=seeds,
    )


def _adjust(comparisons: Sequence[PairedComparison]) -> list[PairedComparison]:
    """Adjust over the ratios and encoders of each dataset, region and metric, after Holm."""
    families = [(c.dataset, c.region, c.metric) for c in comparisons]
    wilcoxon = adjust_by_family([c.wilcoxon_p for c in comparisons], families)
    permutation = adjust_by_family([c.permutation_p for c in comparisons], families)
    return [
        replace(comparison, wilcoxon_holm=p, permutation_holm=q)
        for comparison, p, q in zip(comparisons, wilcoxon, permutation, strict=True)
    ]
