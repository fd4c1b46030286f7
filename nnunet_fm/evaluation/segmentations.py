"""A folder of predictions against a folder of ground truth: per-case scores, CSV and a Markdown table."""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from nnunet_fm.evaluation.metrics import dice, hausdorff95, image_diagonal
from nnunet_fm.messages import some


@dataclass(frozen=True)
class Region:
    """A named union of labels, e.g. tumour core."""

    name: str
    labels: tuple[int, ...]


# Enhancing tumour is 3 since 2023 and was 4 before; no case has both, see _check_brats.
BRATS_REGIONS = (Region("WT", (1, 2, 3, 4)), Region("TC", (1, 3, 4)), Region("ET", (3, 4)))


@dataclass(frozen=True)
class CaseScore:
    """Scores of one region of one case; `status` is `ok` or `missing` (no prediction: Dice 0, HD95 the diagonal)."""

    case: str
    region: str
    dice: float
    hd95_mm: float
    truth_voxels: int
    predicted_voxels: int
    status: str = "ok"


def regions_of(dataset_json: Path) -> tuple[Region, ...]:
    """Regions, or foreground labels, of an nnU-Net `dataset.json`."""
    labels = json.loads(dataset_json.read_text())["labels"]
    as_tuple = {n: tuple(v) if isinstance(v, list) else (int(v),) for n, v in labels.items()}
    return tuple(Region(n, v) for n, v in as_tuple.items() if v != (0,) and n not in ("background", "ignore"))


def evaluate_folders(
    predictions: Path, truths: Path, regions: Sequence[Region], ending: str = ".nii.gz", workers: int = 2
) -> list[CaseScore]:
    """Score every case that has a ground truth; a missing prediction counts as a failure.

    Args:
        predictions: folder with `CASE<ending>`.
        truths: folder with `CASE<ending>`.
        regions: what to score.
        ending: file ending.
        workers: processes.

    Raises:
        FileNotFoundError: a folder does not exist or holds no such file.
        ValueError: a prediction and its truth are on different grids.
    """
    for folder in (predictions, truths):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder; type nnunet-fm evaluate PREDICTIONS GROUND_TRUTH")
    cases = sorted(p.name for p in truths.glob(f"*{ending}"))
    if not cases:
        raise FileNotFoundError(f"{truths} holds no *{ending}; the ground truth has to be CASE{ending}")
    jobs = [(name.removesuffix(ending), predictions / name, truths / name, tuple(regions)) for name in cases]
    with ProcessPoolExecutor(min(workers, os.cpu_count() or 1)) as pool:
        done = list(tqdm(pool.map(_score_case, jobs), total=len(jobs), desc="evaluating", disable=len(jobs) < 4))
    scores = [score for case in done for score in case]
    if all(s.status == "missing" for s in scores):
        raise FileNotFoundError(f"{predictions} holds no prediction for any of {some(cases)}")
    return scores


def _score_case(job: tuple[str, Path, Path, tuple[Region, ...]]) -> list[CaseScore]:
    case, predicted_file, truth_file, regions = job
    truth, spacing = _read(truth_file)
    if regions == BRATS_REGIONS and 3 in truth and 4 in truth:
        raise ValueError(f"{case} has labels 3 and 4: 4 is a resection cavity, not one of the regions WT, TC, ET")
    if not predicted_file.is_file():
        worst = image_diagonal(truth.shape, spacing)
        return [CaseScore(case, r.name, 0.0, worst, int(np.isin(truth, r.labels).sum()), 0, "missing") for r in regions]
    predicted, predicted_spacing = _read(predicted_file)
    if predicted.shape != truth.shape or not np.allclose(predicted_spacing, spacing, atol=1e-3):
        raise ValueError(
            f"{case}: prediction {predicted.shape} at {predicted_spacing} mm, truth {truth.shape} at {spacing} mm; "
            "both must be on one grid (is this the right folder?)"
        )
    scores = []
    for region in regions:
        p, t = np.isin(predicted, region.labels), np.isin(truth, region.labels)
        scores.append(CaseScore(case, region.name, dice(p, t), hausdorff95(p, t, spacing), int(t.sum()), int(p.sum())))
    return scores


def _read(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """Labels as (z, y, x), and the spacing in the same order."""
    image = sitk.ReadImage(str(path))
    return sitk.GetArrayFromImage(image).astype(np.int16), tuple(reversed(image.GetSpacing()))


def markdown_table(scores: Sequence[CaseScore]) -> str:
    """Mean ± standard deviation over cases (ddof 1), a line per region and one for their mean."""
    lines = ["| region | cases | Dice | HD95 (mm) | missing |", "|---|---|---|---|---|"]
    for region in dict.fromkeys(s.region for s in scores):
        chosen = [s for s in scores if s.region == region]
        lines.append(_row(region, chosen, [s.dice for s in chosen], [s.hd95_mm for s in chosen]))
    if len({s.region for s in scores}) > 1:
        by_case: dict[str, list[CaseScore]] = {}
        for s in scores:
            by_case.setdefault(s.case, []).append(s)
        means = [(np.mean([s.dice for s in c]), np.mean([s.hd95_mm for s in c])) for c in by_case.values()]
        first = [c[0] for c in by_case.values()]
        lines.append(_row("mean", first, [float(d) for d, _ in means], [float(h) for _, h in means]))
    rule = "Both empty: Dice 1, HD95 0. One empty or no prediction: Dice 0, HD95 the image diagonal."
    return "\n".join([*lines, "", rule])


def _row(name: str, scores: Sequence[CaseScore], dices: Sequence[float], distances: Sequence[float]) -> str:
    spread = [float(np.std(v, ddof=1)) if len(v) > 1 else float("nan") for v in (dices, distances)]
    missing = sum(s.status == "missing" for s in scores)
    return (
        f"| {name} | {len(scores)} | {np.mean(dices):.4f} ± {spread[0]:.4f} | "
        f"{np.mean(distances):.2f} ± {spread[1]:.2f} | {missing} |"
    )
