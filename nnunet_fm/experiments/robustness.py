"""Scores of models on perturbed images, compared with the clean images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nnunet_fm.data.perturbations import IDENTITY, Perturbation
from nnunet_fm.evaluation.intervals import mean_limits
from nnunet_fm.evaluation.segmentation import MetricOptions
from nnunet_fm.experiments.encoder_runs import EncoderRuns, group_runs
from nnunet_fm.experiments.perturbed_predictions import (
    finished_perturbations,
    left_out_of,
    perturbed_folder,
)
from nnunet_fm.experiments.run_scores import Problems, ScoredRun, score_folder, without_cases
from nnunet_fm.experiments.summary import METRICS, Metric


@dataclass(frozen=True)
class PerturbedScore:
    """A metric of one encoder under one perturbation; a case's value is the mean of its seeds.

    Attributes:
        dataset: full name of the dataset.
        encoder: name of the encoder.
        ratio: share of the training cases.
        region: name of the region.
        metric: key of the metric.
        family: kind of perturbation, e.g. `gibbs`.
        severity: strength of the perturbation; the clean images are listed in each family, at the
            severity that changes nothing.
        value: mean over the cases.
        low: lower 95 % limit of the mean.
        high: upper limit.
        change: mean difference from the clean images.
        change_low: lower 95 % limit of the difference.
        change_high: upper limit.
        cases: number of cases.
        seeds: number of seeds.
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


def score_perturbations(
    scored: Sequence[ScoredRun],
    preprocessed: Path,
    options: MetricOptions,
    workers: int = 2,
    problems: Problems | None = None,
) -> list[PerturbedScore]:
    """Score the predictions of perturbed images that `predict_perturbed` has written.

    A perturbation is used where all runs of an encoder and ratio have it.

    Args:
        scored: finished runs.
        preprocessed: nnUNet_preprocessed.
        options: metric options.
        workers: number of processes.
        problems: as of `score_runs`; the cases are left out of all perturbations, too.
    """
    groups = group_runs([s for s in scored if perturbed_folder(s.run, None).is_dir()])
    found = []
    for group in groups:
        common = set.intersection(*(set(finished_perturbations(s.run)) for s in group.runs))
        changes = [None, *common]
        found.append(
            {c: _rescored(group, c, preprocessed, options, workers, problems) for c in changes}
        )
    rows: list[PerturbedScore] = []
    for by_change in found:
        rows += _group_rows(
            {
                c: replace(g, runs=without_cases(g.runs, problems or {}))
                for c, g in by_change.items()
            }
        )
    return rows


def _group_rows(by_change: dict[Perturbation | None, EncoderRuns]) -> list[PerturbedScore]:
    """Compare the perturbations of one encoder and ratio; None stands for the clean images."""
    rows: list[PerturbedScore] = []
    clean = by_change[None]
    changes = [change for change in by_change if change]
    for family in sorted({change.family for change in changes}):
        by_severity = {IDENTITY[family]: clean}
        by_severity |= {c.severity: by_change[c] for c in changes if c.family == family}
        for severity in sorted(by_severity):
            rows += _rows(clean, by_severity[severity], family, severity)
    return rows


def _rescored(
    group: EncoderRuns,
    change: Perturbation | None,
    preprocessed: Path,
    options: MetricOptions,
    workers: int,
    problems: Problems | None,
) -> EncoderRuns:
    """Return the same runs with the scores of perturbed images."""
    runs = []
    for scored in group.runs:
        folder = perturbed_folder(scored.run, change)
        left_out = left_out_of(folder)
        cases = [case for case in scored.cases if case not in left_out]
        scores = score_folder(scored.run, folder, cases, preprocessed, options, workers, problems)
        if problems is not None:
            problems |= {(scored.run.dataset, case): why for case, why in left_out.items()}
        runs.append(replace(scored, scores=scores))
    return replace(group, runs=runs)


def _rows(
    clean: EncoderRuns, perturbed: EncoderRuns, family: str, severity: float
) -> list[PerturbedScore]:
    """Compare clean and perturbed images in every region and metric."""
    return [
        _row(clean, perturbed, family, severity, region, metric)
        for region in clean.regions
        for metric in METRICS
    ]


def _row(
    clean: EncoderRuns,
    perturbed: EncoderRuns,
    family: str,
    severity: float,
    region: str,
    metric: Metric,
) -> PerturbedScore:
    before = np.array(list(clean.by_case(region, metric.key).values()))
    after = np.array(list(perturbed.by_case(region, metric.key).values()))
    low, high = mean_limits(after)
    change_low, change_high = mean_limits(after - before)
    return PerturbedScore(
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
        seeds=len(clean.repeats),
    )
