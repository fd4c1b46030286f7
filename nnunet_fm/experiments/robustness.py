"""Scores of models on perturbed images, beside those on the clean ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nnunet_fm.data.perturbations import IDENTITY, Perturbation
from nnunet_fm.evaluation.segmentation import MetricOptions
from nnunet_fm.experiments.perturbed_predictions import finished_perturbations, perturbed_folder
from nnunet_fm.experiments.run_scores import ScoredRun, scores_of
from nnunet_fm.experiments.summary import METRICS, Group, Metric, groups, limits_of_mean


@dataclass(frozen=True)
class Robustness:
    """One encoder under one perturbation.

    Attributes:
        dataset, encoder, ratio, region, metric: what.
        family, severity: of the perturbation; the clean value stands in each family at its severity
        "none". value, low, high: mean over the cases, each the mean of its seeds, with 95 % BCa
        limits. change, change_low, change_high: from the clean images. cases, seeds: how many.
    """

    dataset: str
    encoder: str
    ratio: float
    region: str
    metric: str
    family: str
    severity: float
    value: float
    low: float
    high: float
    change: float
    change_low: float
    change_high: float
    cases: int
    seeds: int


def robustness(
    scored: Sequence[ScoredRun], preprocessed: Path, rules: MetricOptions, workers: int = 2
) -> list[Robustness]:
    """Every perturbation that was predicted (`nnunet-fm robustness`), where a group's runs all have it.

    Args:
        scored: finished runs.
        preprocessed: nnUNet_preprocessed.
        rules: what the metrics leave open.
        workers: processes.
    """
    found = []
    for group in groups([s for s in scored if perturbed_folder(s.run, None).is_dir()]):
        clean = _group(group, None, preprocessed, rules, workers)
        shared = set.intersection(*(set(finished_perturbations(s.run)) for s in group.runs))
        of = {
            p: _group(group, p, preprocessed, rules, workers)
            for p in sorted(shared, key=lambda p: p.severity)
        }
        for family in sorted({p.family for p in shared}):
            settings = [
                (IDENTITY[family], clean),
                *((p.severity, g) for p, g in of.items() if p.family == family),
            ]
            for severity, changed in sorted(settings, key=lambda s: s[0]):
                found += [
                    _robustness(clean, changed, family, severity, region, metric)
                    for region in clean.regions
                    for metric in METRICS
                ]
    return found


def _group(
    group: Group,
    change: Perturbation | None,
    preprocessed: Path,
    rules: MetricOptions,
    workers: int,
) -> Group:
    """The same runs with the scores of perturbed images."""
    runs = []
    for s in group.runs:
        scores = scores_of(
            s.run, perturbed_folder(s.run, change), s.cases, preprocessed, rules, workers
        )
        runs.append(replace(s, scores=scores))
    return replace(group, runs=runs)


def _robustness(
    clean: Group, changed: Group, family: str, severity: float, region: str, metric: Metric
) -> Robustness:
    before, after = (
        np.array(list(g.by_case(region, metric.key).values())) for g in (clean, changed)
    )
    low, high = limits_of_mean(after)
    change_low, change_high = limits_of_mean(after - before)
    return Robustness(
        dataset=clean.dataset,
        encoder=clean.encoder,
        ratio=clean.ratio,
        region=region,
        metric=metric.key,
        family=family,
        severity=severity,
        value=float(after.mean()),
        low=low,
        high=high,
        change=float((after - before).mean()),
        change_low=change_low,
        change_high=change_high,
        cases=len(after),
        seeds=len(clean.seeds),
    )
