"""Means of segmentation scores over regions and cases, and their Markdown table."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_fm.evaluation.segmentation import CaseScore
from nnunet_fm.internal.atomic_files import write_csv, write_text
from nnunet_fm.internal.markdown import markdown_table

MEANS = ("dice", "hd95_mm", "surface_dice", "lesion_dice", "lesion_f1")
SUMS = ("lesions", "lesions_found", "lesions_false", "truth_voxels", "predicted_voxels")
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
NOTES = (
    "Both empty: Dice 1, HD95 0. One empty or no prediction: Dice 0, HD95 the image diagonal.",
    "Lesions are connected components, not those of the BraTS challenges.",
)


def scores_table(scores: Sequence[CaseScore]) -> str:
    """Format mean ± standard deviation over cases (ddof 1) by region, and for their mean."""
    regions = dict.fromkeys(score.region for score in scores)
    rows = [_row(region, [s for s in scores if s.region == region]) for region in regions]
    if len(regions) > 1:
        rows.append(_row("mean", mean_of_regions(scores)))
    return "\n".join([markdown_table(COLUMNS, rows), "", *NOTES])


def write_scores(scores: Sequence[CaseScore], folder: Path, regions: str) -> None:
    """Write `scores.csv` with one line per case and region, and `scores.md` with the means.

    Args:
        scores: scores of any number of cases and regions.
        folder: folder to write into.
        regions: where the regions come from, and the name of their label scheme.
    """
    write_csv(scores, folder / "scores.csv")
    write_text(folder / "scores.md", f"{regions}\n\n{scores_table(scores)}\n")


def mean_of_regions(scores: Sequence[CaseScore], name: str = "mean") -> list[CaseScore]:
    """Average the regions of each case; numbers of lesions and voxels are added up.

    Args:
        scores: scores of any number of cases and regions.
        name: region name of the averages.
    """
    by_case: dict[str, list[CaseScore]] = {}
    for score in scores:
        by_case.setdefault(score.case, []).append(score)
    return [_mean_of(regions, name) for regions in by_case.values()]


def _mean_of(regions: Sequence[CaseScore], name: str) -> CaseScore:
    values: dict[str, Any] = {}
    for key in MEANS:
        values[key] = float(np.mean([getattr(score, key) for score in regions]))
    for key in SUMS:
        values[key] = sum(getattr(score, key) for score in regions)
    return replace(regions[0], region=name, **values)


def _row(name: str, scores: Sequence[CaseScore]) -> list[object]:
    found = sum(score.lesions_found for score in scores)
    return [
        name,
        len(scores),
        _mean_and_deviation([score.dice for score in scores], 4),
        _mean_and_deviation([score.hd95_mm for score in scores], 2),
        _mean_and_deviation([score.surface_dice for score in scores], 4),
        _mean_and_deviation([score.lesion_dice for score in scores], 4),
        f"{found}/{sum(score.lesions for score in scores)}",
        sum(score.lesions_false for score in scores),
        sum(score.status == "missing" for score in scores),
    ]


def _mean_and_deviation(values: Sequence[float], digits: int) -> str:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return f"{np.mean(values):.{digits}f} ± {deviation:.{digits}f}"
