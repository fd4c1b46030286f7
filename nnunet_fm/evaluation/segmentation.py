"""Scores of predicted segmentations against ground truth, one row per case and region."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Integer
from scipy import ndimage
from tqdm import tqdm

from nnunet_fm.data.image_size import UnreadableImageError
from nnunet_fm.data.label_images import Labels
from nnunet_fm.data.label_schemes import Region, fitting_schemes
from nnunet_fm.evaluation.label_folders import (
    LabelPair,
    check_places,
    find_pairs,
    readable_pairs,
)
from nnunet_fm.evaluation.labels import BRATS_REGIONS, LabelScheme
from nnunet_fm.evaluation.lesions import lesion_score
from nnunet_fm.evaluation.metrics import dice, image_diagonal, surface_scores
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.processes import worker_pool


@dataclass(frozen=True)
class MetricOptions:
    """Metric options.

    Attributes:
        tolerance_mm: tolerance of the surface Dice, mm.
        lesion_mm3: volume below which a lesion does not count, mm³ (BraTS 2023: 50).
        ignore_origin: compare images of one grid even where their origins differ.

    Raises:
        ValueError: a value below 0.
    """

    tolerance_mm: float = 1.0
    lesion_mm3: float = 50.0
    ignore_origin: bool = False

    def __post_init__(self) -> None:
        if min(self.tolerance_mm, self.lesion_mm3) < 0:
            raise InputError(
                f"tolerance {self.tolerance_mm:g} mm, lesions of {self.lesion_mm3:g} mm³; "
                "allowed: 0 or more"
            )


@dataclass(frozen=True)
class CaseScore:
    """Scores of one region of one case.

    Attributes:
        case: name of the case.
        region: name of the region.
        dice: Dice similarity of the whole region, 0 to 1.
        hd95_mm: 95th percentile Hausdorff distance of the whole region, mm.
        surface_dice: surface Dice of the whole region, 0 to 1.
        lesion_dice: mean Dice over lesions, see `LesionScore`.
        lesion_f1: F1 of the detection of lesions.
        lesions: number of true lesions.
        lesions_found: number of true lesions that the prediction touches.
        lesions_false: number of predicted lesions that touch no true one.
        truth_voxels: size of the true region.
        predicted_voxels: size of the predicted region.
        status: `ok`, or `missing`: there is no prediction. It counts as an empty one, and HD95 is
            the image diagonal.
    """

    case: str
    region: str
    dice: float
    hd95_mm: float
    surface_dice: float
    lesion_dice: float
    lesion_f1: float
    lesions: int
    lesions_found: int
    lesions_false: int
    truth_voxels: int
    predicted_voxels: int
    status: str = "ok"


@dataclass(frozen=True)
class _Job:
    """One case to score in a worker process."""

    pair: LabelPair
    scheme: LabelScheme
    options: MetricOptions


def evaluate_folders(
    predictions: Path,
    truths: Path,
    scheme: LabelScheme,
    workers: int = 2,
    options: MetricOptions | None = None,
    cases: Sequence[str] | None = None,
    problems: dict[str, str] | None = None,
) -> list[CaseScore]:
    """Score every case that has a ground truth; a missing prediction counts as a failure.

    Args:
        predictions: folder with `CASE<ending>`.
        truths: folder with `CASE<ending>`.
        scheme: the regions to score.
        workers: number of processes; 1 scores the cases in this process.
        options: metric options; `MetricOptions()` if None.
        cases: names of the cases to score; all cases if None.
        problems: see `evaluate_pairs`.

    Raises:
        FileNotFoundError: a folder does not exist or has no such file.
        ValueError: a prediction lies elsewhere than its truth (files that only store the same
            voxels in another order are re-oriented), or a file has a label that the scheme does
            not name.
    """
    options = options or MetricOptions()
    pairs = find_pairs(predictions, truths, scheme.ending, cases)
    if problems is not None:
        pairs, unreadable = readable_pairs(pairs)
        problems |= unreadable
    check_places(pairs, options.ignore_origin)
    return evaluate_pairs(pairs, scheme, workers, options, problems)


def evaluate_pairs(
    pairs: Sequence[LabelPair],
    scheme: LabelScheme,
    workers: int,
    options: MetricOptions,
    problems: dict[str, str] | None = None,
) -> list[CaseScore]:
    """Score pairs whose places have been checked.

    Args:
        pairs: see `find_pairs`.
        scheme: see `evaluate_folders`.
        workers: see `evaluate_folders`.
        options: metric options.
        problems: receives what is wrong with each case whose files cannot be read; if None, the
            first one is an error.

    Raises:
        ValueError: see `evaluate_folders`; or no case can be read.
    """
    jobs = [_Job(pair, scheme, options) for pair in pairs]
    results = _score_cases(jobs, min(workers, os.cpu_count() or 1, len(jobs)))
    scores: list[CaseScore] = []
    for pair, result in zip(pairs, results, strict=True):
        if isinstance(result, list):
            scores += result
        elif problems is None:
            raise UnreadableImageError(result)
        else:
            problems[pair.case] = result
    if not scores and problems:
        raise UnreadableImageError(next(iter(problems.values())))
    return scores


def _score_cases(jobs: Sequence[_Job], workers: int) -> list[list[CaseScore] | str]:
    if workers > 1:
        with worker_pool(workers, method=None) as pool:
            scored = pool.map(_score_or_reason, jobs)
            return list(tqdm(scored, total=len(jobs), desc="evaluating", leave=False))
    return [_score_or_reason(job) for job in tqdm(jobs, desc="evaluating", leave=False)]


def _score_or_reason(job: _Job) -> list[CaseScore] | str:
    """Score a case; or return why a file of it cannot be read."""
    try:
        return _score_case(job)
    except UnreadableImageError as error:
        return str(error)


def _score_case(job: _Job) -> list[CaseScore]:
    image, predicted = job.pair.read(job.scheme)
    truth = image.labels
    spacing = image.spacing
    missing = predicted is None
    if predicted is None:
        predicted = np.zeros_like(truth)
    _check_brats(job, truth)
    _check_brats(job, predicted)
    if job.scheme.ignore is not None:
        scored = truth != job.scheme.ignore
        predicted = predicted * scored
        truth = truth * scored
    diagonal = image_diagonal(truth.shape, spacing)
    # a single slice is two-dimensional
    in_plane = tuple(s for s, n in zip(spacing, truth.shape, strict=True) if n > 1)
    box = _foreground_box(predicted, truth)
    predicted = _drop_thin_axes(predicted[box])
    truth = _drop_thin_axes(truth[box])
    scores = [
        _score_region(job, region, predicted, truth, in_plane, diagonal)
        for region in job.scheme.regions
    ]
    return [_as_missing(score, diagonal) for score in scores] if missing else scores


def _check_brats(job: _Job, labels: Labels) -> None:
    if job.scheme.regions == BRATS_REGIONS and 3 in labels and 4 in labels:
        raise InputError(
            f"{job.pair.case} has labels 3 and 4, which gli2021 (1 NCR, 2 ED, 4 ET) does not; "
            f"add --scheme NAME with one that fits: {fitting_schemes([3, 4])}"
        )


def _foreground_box(predicted: Labels, truth: Labels) -> tuple[slice, ...]:
    """Return the box around all foreground, widened by two voxels.

    The margin keeps foreground off the edge and every axis more than one voxel thick.
    """
    boxes = ndimage.find_objects(((predicted > 0) | (truth > 0)).astype(np.uint8))
    if not boxes:
        return (slice(None),) * truth.ndim
    return tuple(slice(max(0, s.start - 2), s.stop + 2) for s in boxes[0])


def _drop_thin_axes(labels: Labels) -> Integer[np.ndarray, "..."]:
    """Drop axes of length 1."""
    return labels.reshape([n for n in labels.shape if n > 1])


def _score_region(
    job: _Job,
    region: Region,
    predicted: Labels,
    truth: Labels,
    spacing: tuple[float, ...],
    diagonal: float,
) -> CaseScore:
    predicted_mask = np.isin(predicted, region.labels)
    true_mask = np.isin(truth, region.labels)
    lesions = lesion_score(predicted_mask, true_mask, spacing, job.options.lesion_mm3)
    hd95, surface_dice = surface_scores(
        predicted_mask, true_mask, spacing, job.options.tolerance_mm, diagonal
    )
    return CaseScore(
        case=job.pair.case,
        region=region.name,
        dice=dice(predicted_mask, true_mask),
        hd95_mm=hd95,
        surface_dice=surface_dice,
        lesion_dice=lesions.dice,
        lesion_f1=lesions.f1,
        lesions=lesions.lesions,
        lesions_found=lesions.found,
        lesions_false=lesions.false,
        truth_voxels=int(true_mask.sum()),
        predicted_voxels=int(predicted_mask.sum()),
    )


def _as_missing(score: CaseScore, diagonal: float) -> CaseScore:
    """Return the score of a case without a prediction, even where the truth is empty as well."""
    return replace(
        score,
        dice=0.0,
        hd95_mm=diagonal,
        surface_dice=0.0,
        lesion_dice=0.0,
        lesion_f1=0.0,
        status="missing",
    )
