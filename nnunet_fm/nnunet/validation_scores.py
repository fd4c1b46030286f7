"""What nnU-Net's own validation of a fold says about its final checkpoint."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.json_files import read_object
from nnunet_fm.nnunet.file_names import FINAL_CHECKPOINT, SUMMARY_JSON
from nnunet_fm.nnunet.run_record import read_record
from nnunet_fm.nnunet.splits import ALL

METRICS = ("Dice", "IoU")  # of nnU-Net's summary


@dataclass(frozen=True)
class ValidationScore:
    """The mean of a label or region over validation cases.

    Attributes:
        fold: e.g. `0`; several are joined by `, `.
        label: name of the label or region.
        cases: that have it, in the prediction or the ground truth; others have no score.
        dice: mean Dice, from 0 to 1.
        iou: mean intersection over union, from 0 to 1.
    """

    fold: str
    label: str
    cases: int
    dice: float
    iou: float


def validation_scores(
    fold: Path, checkpoint: str, labels: Mapping[str, Any]
) -> list[ValidationScore]:
    """Read the scores of a fold, a label each.

    Args:
        fold: its folder.
        checkpoint: name of the checkpoint that they have to be of.
        labels: of `dataset.json`.

    Returns:
        Nothing where there are none: the fold was not validated, with another checkpoint, with
        `checkpoint_best.pth`, which the scored cases chose, or is `all`, which validates the cases
        that it was trained on.

    Raises:
        ValueError: the summary is damaged.
    """
    file = fold / SUMMARY_JSON
    number = fold.name.removeprefix("fold_")
    record = read_record(fold)
    validated = record.validated if record else FINAL_CHECKPOINT
    if number == ALL or not checkpoint == validated == FINAL_CHECKPOINT or not file.is_file():
        return []
    try:
        cases = [case["metrics"] for case in read_object(file)["metric_per_case"]]
        found = [
            _mean([case[_key(value)] for case in cases if _key(value) in case], number, name)
            for name, value in labels.items()
        ]
    except (KeyError, TypeError) as error:
        raise InputError(f"{file} is not a summary of nnU-Net ({error}); validate again") from None
    return [score for score in found if score.cases]


def pooled(scores: Sequence[ValidationScore]) -> list[ValidationScore]:
    """Return the means over the cases of all folds, a label each."""
    labels = dict.fromkeys(score.label for score in scores)
    return [_pool([score for score in scores if score.label == label]) for label in labels]


def _pool(scores: Sequence[ValidationScore]) -> ValidationScore:
    cases = sum(score.cases for score in scores)
    return ValidationScore(
        fold=", ".join(score.fold for score in scores),
        label=scores[0].label,
        cases=cases,
        dice=sum(score.cases * score.dice for score in scores) / cases,
        iou=sum(score.cases * score.iou for score in scores) / cases,
    )


def _key(value: Any) -> str:
    """Return what nnU-Net calls a label, or a region of several, in its summary."""
    return str(tuple(value)) if isinstance(value, list) else str(value)


def _mean(cases: Sequence[Mapping[str, float]], fold: str, label: str) -> ValidationScore:
    """Average over the cases that have the label; nnU-Net's metrics of the others are NaN."""
    scored = [case for case in cases if math.isfinite(case[METRICS[0]])]
    dice, iou = (sum(case[m] for case in scored) / max(1, len(scored)) for m in METRICS)
    return ValidationScore(fold, label, len(scored), dice, iou)
