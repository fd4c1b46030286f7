"""A folder of predictions against a folder of ground truth: per-case scores, CSV and a Markdown table."""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from jaxtyping import Integer
from scipy import ndimage
from tqdm import tqdm

from nnunet_fm.evaluation.lesions import lesion_score
from nnunet_fm.evaluation.metrics import dice, image_diagonal, surface_scores
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.markdown import markdown_table
from nnunet_fm.internal.messages import some

Labels = Integer[np.ndarray, "*grid"]
MEANS = ("dice", "hd95_mm", "surface_dice", "lesion_dice", "lesion_f1")
NO_FOLDER = "no folder; type nnunet-fm evaluate PREDICTIONS GROUND_TRUTH"
COLUMNS = (
    "region",
    "cases",
    "Dice",
    "HD95 (mm)",
    "surface Dice",
    "lesion Dice",
    "lesions found",
    "false",
    "missing",
)
SUMS = ("lesions", "lesions_found", "lesions_false", "truth_voxels", "predicted_voxels")


@dataclass(frozen=True)
class Region:
    """A named union of labels, e.g. tumour core."""

    name: str
    labels: tuple[int, ...]


# Enhancing tumour is 3 since 2023 and was 4 before; no case has both, see _check_brats.
BRATS_REGIONS = (Region("WT", (1, 2, 3, 4)), Region("TC", (1, 3, 4)), Region("ET", (3, 4)))


@dataclass(frozen=True)
class Rules:
    """What the metrics leave open.

    Attributes:
        tolerance_mm: of the surface Dice.
        lesion_mm3: volume below which a lesion does not count (BraTS 2023: 50).

    Raises:
        ValueError: below 0.
    """

    tolerance_mm: float = 1.0
    lesion_mm3: float = 50.0

    def __post_init__(self) -> None:
        if min(self.tolerance_mm, self.lesion_mm3) < 0:
            raise InputError(
                f"tolerance {self.tolerance_mm:g} mm, lesions of {self.lesion_mm3:g} mm³; allowed: 0 or more"
            )


@dataclass(frozen=True)
class CaseScore:
    """Scores of one region of one case.

    Attributes:
        case, region: which.
        dice, hd95_mm, surface_dice: of the whole region.
        lesion_dice, lesion_f1, lesions, lesions_found, lesions_false: lesion by lesion, see
        `LesionScore`. truth_voxels, predicted_voxels: sizes.
        status: `ok`, or `missing`: no prediction, which counts as an empty one (HD95 the diagonal).
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
class Labelling:
    """What the numbers in a dataset's label files mean.

    Attributes:
        regions: what is scored.
        ignore: label whose voxels are not looked at (nnU-Net's `ignore`), if there is one.
        ending: of the files.
    """

    regions: tuple[Region, ...]
    ignore: int | None = None
    ending: str = ".nii.gz"

    @classmethod
    def read(cls, dataset_json: Path) -> "Labelling":
        """Regions, or foreground labels, of an nnU-Net `dataset.json`."""
        facts = json.loads(dataset_json.read_text())
        labels = {
            n: tuple(v) if isinstance(v, list) else (int(v),) for n, v in facts["labels"].items()
        }
        regions = tuple(
            Region(n, v)
            for n, v in labels.items()
            if v != (0,) and n not in ("background", "ignore")
        )
        ignore = labels["ignore"][0] if "ignore" in labels else None
        return cls(regions, ignore, str(facts.get("file_ending", ".nii.gz")))


def evaluate_folders(
    predictions: Path,
    truths: Path,
    labelling: Labelling,
    workers: int = 2,
    rules: Rules | None = None,
    cases: Sequence[str] | None = None,
) -> list[CaseScore]:
    """Score every case that has a ground truth; a missing prediction counts as a failure.

    Args:
        predictions: folder with `CASE<ending>`.
        truths: folder with `CASE<ending>`.
        labelling: what to score.
        workers: processes; with 1 the cases are scored in this one.
        rules: what the metrics leave open; `Rules()` if None.
        cases: names of those to score; all if None.

    Raises:
        FileNotFoundError: a folder does not exist or holds no such file.
        ValueError: a prediction and its truth are on different grids.
    """
    if not predictions.is_dir():
        raise MissingFileError(f"{predictions} is {NO_FOLDER}")
    known = cases_of(truths, labelling.ending)
    if strange := sorted(set(cases or ()) - set(known)):
        raise MissingFileError(
            f"{truths} has no ground truth of {some(strange)}; it has {some(known)}"
        )
    chosen = known if cases is None else sorted(cases)
    files = [f"{name}{labelling.ending}" for name in chosen]
    jobs = [
        (name, predictions / file, truths / file, labelling, rules or Rules())
        for name, file in zip(chosen, files, strict=True)
    ]
    workers = min(workers, os.cpu_count() or 1, len(jobs))
    with ProcessPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
        scored = pool.map(_score_case, jobs) if pool else map(_score_case, jobs)
        done = list(tqdm(scored, total=len(jobs), desc="evaluating", leave=False))
    scores = [score for case in done for score in case]
    if all(s.status == "missing" for s in scores):
        raise MissingFileError(f"{predictions} holds no prediction for any of {some(chosen)}")
    return scores


def cases_of(truths: Path, ending: str) -> list[str]:
    """Names of the cases that a folder has the ground truth of.

    Raises:
        FileNotFoundError: no such folder, or none in it.
    """
    if not truths.is_dir():
        raise MissingFileError(f"{truths} is {NO_FOLDER}")
    known = sorted(p.name.removesuffix(ending) for p in truths.glob(f"*{ending}"))
    if not known:
        raise MissingFileError(
            f"{truths} holds no *{ending}; the ground truth has to be CASE{ending}"
        )
    return known


def _score_case(job: tuple[str, Path, Path, Labelling, Rules]) -> list[CaseScore]:
    case, predicted_file, truth_file, labelling, rules = job
    truth, spacing = _read(truth_file)
    if labelling.regions == BRATS_REGIONS and 3 in truth and 4 in truth:
        raise InputError(
            f"{case} has labels 3 and 4: 4 is a resection cavity, not one of the regions WT, TC, ET"
        )
    worst, missing = image_diagonal(truth.shape, spacing), not predicted_file.is_file()
    predicted, predicted_spacing = (
        (np.zeros_like(truth), spacing) if missing else _read(predicted_file)
    )
    if predicted.shape != truth.shape or not np.allclose(predicted_spacing, spacing, atol=1e-3):
        raise InputError(
            f"{case}: prediction {predicted.shape} at {predicted_spacing} mm, truth {truth.shape} at {spacing} mm; "
            "both must be on one grid (is this the right folder?)"
        )
    if labelling.ignore is not None:
        looked_at = truth != labelling.ignore
        predicted, truth = predicted * looked_at, truth * looked_at
    box = _box_around(predicted, truth)
    grid = tuple(
        s for s, n in zip(spacing, truth.shape, strict=True) if n > 1
    )  # one slice is two-dimensional
    p, t = (
        labels[box].reshape([n for n in labels[box].shape if n > 1])
        for labels in (predicted, truth)
    )
    scores = [_score_region(case, r, p, t, grid, rules, worst) for r in labelling.regions]
    fails: dict[str, Any] = {
        "dice": 0.0,
        "hd95_mm": worst,
        "surface_dice": 0.0,
        "lesion_dice": 0.0,
        "lesion_f1": 0.0,
    }
    return [replace(s, **fails, status="missing") for s in scores] if missing else scores


def _box_around(predicted: Labels, truth: Labels) -> tuple[slice, ...]:
    """All foreground and two voxels more, so that nothing touches the edge and no axis becomes one voxel thin."""
    found = ndimage.find_objects(((predicted > 0) | (truth > 0)).astype(np.uint8))
    if not found:
        return (slice(None),) * truth.ndim
    return tuple(slice(max(0, s.start - 2), s.stop + 2) for s in found[0])


def _score_region(
    case: str,
    region: Region,
    predicted: Labels,
    truth: Labels,
    spacing: tuple[float, ...],
    rules: Rules,
    worst: float,
) -> CaseScore:
    p, t = np.isin(predicted, region.labels), np.isin(truth, region.labels)
    lesions = lesion_score(p, t, spacing, rules.lesion_mm3)
    hd95, of_surface = surface_scores(p, t, spacing, rules.tolerance_mm, worst)
    return CaseScore(
        case=case,
        region=region.name,
        dice=dice(p, t),
        hd95_mm=hd95,
        surface_dice=of_surface,
        lesion_dice=lesions.dice,
        lesion_f1=lesions.f1,
        lesions=lesions.lesions,
        lesions_found=lesions.found,
        lesions_false=lesions.false,
        truth_voxels=int(t.sum()),
        predicted_voxels=int(p.sum()),
    )


def _read(path: Path) -> tuple[Labels, tuple[float, ...]]:
    """Labels as (z, y, x) or (y, x), and the spacing in the same order."""
    image = sitk.ReadImage(str(path))
    return sitk.GetArrayFromImage(image).astype(np.int16), tuple(reversed(image.GetSpacing()))


def scores_table(scores: Sequence[CaseScore]) -> str:
    """Mean ± standard deviation over cases (ddof 1), a line per region and one for their mean."""
    regions = dict.fromkeys(s.region for s in scores)
    rows = [_row(region, [s for s in scores if s.region == region]) for region in regions]
    if len(regions) > 1:
        rows.append(_row("mean", mean_of_regions(scores)))
    rule = (
        "Both empty: Dice 1, HD95 0. One empty or no prediction: Dice 0, HD95 the image diagonal."
    )
    lesions = "Lesions are connected components, not those of the BraTS challenges."
    return "\n".join([markdown_table(COLUMNS, rows), "", rule, lesions])


def mean_of_regions(scores: Sequence[CaseScore], name: str = "mean") -> list[CaseScore]:
    """A score per case: the mean of its regions; lesions are added up."""
    by_case: dict[str, list[CaseScore]] = {}
    for s in scores:
        by_case.setdefault(s.case, []).append(s)
    return [_mean_of(of_case, name) for of_case in by_case.values()]


def _mean_of(regions: Sequence[CaseScore], name: str) -> CaseScore:
    means: dict[str, Any] = {k: float(np.mean([getattr(s, k) for s in regions])) for k in MEANS}
    sums: dict[str, Any] = {k: sum(getattr(s, k) for s in regions) for k in SUMS}
    return replace(regions[0], region=name, **means, **sums)


def _row(name: str, scores: Sequence[CaseScore]) -> list[object]:
    def spread(key: str, digits: int) -> str:
        values = [getattr(s, key) for s in scores]
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
        return f"{np.mean(values):.{digits}f} ± {deviation:.{digits}f}"

    lesions = [
        sum(getattr(s, k) for s in scores) for k in ("lesions_found", "lesions", "lesions_false")
    ]
    missing = sum(s.status == "missing" for s in scores)
    means = [
        spread("dice", 4),
        spread("hd95_mm", 2),
        spread("surface_dice", 4),
        spread("lesion_dice", 4),
    ]
    return [name, len(scores), *means, f"{lesions[0]}/{lesions[1]}", lesions[2], missing]
