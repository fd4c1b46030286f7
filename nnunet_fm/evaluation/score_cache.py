"""Scores of a folder, kept beside the predictions for as long as the files and the rules are the same."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from nnunet_fm.evaluation.segmentation import CaseScore, Labelling, Rules, evaluate_folders
from nnunet_fm.internal.files import files_sha256, write_text

LOG = logging.getLogger(__name__)
KEPT = "nnunet_fm_scores.json"
VERSION = 1  # raised whenever the same files get other scores


def remembered_scores(
    predictions: Path,
    truths: Path,
    labelling: Labelling,
    cases: Sequence[str],
    rules: Rules,
    workers: int = 2,
) -> list[CaseScore]:
    """As `evaluate_folders`, but what was scored once is read.

    Args:
        predictions: folder with `CASE<ending>`; the scores are kept in it.
        truths: folder with `CASE<ending>`.
        labelling: what to score.
        cases: names of those to score; each must have a prediction.
        rules: what the metrics leave open.
        workers: processes.

    Raises:
        FileNotFoundError, ValueError: as `evaluate_folders`.
    """
    files = [
        folder / f"{case}{labelling.ending}"
        for case in sorted(cases)
        for folder in (predictions, truths)
    ]
    words = [VERSION, sorted(cases), asdict(labelling), asdict(rules), files_sha256(files)]
    key = hashlib.sha256(json.dumps(words).encode()).hexdigest()
    kept = predictions / KEPT
    if kept.is_file():
        former = json.loads(kept.read_text())
        if former["key"] == key:
            return [CaseScore(**s) for s in former["scores"]]
    scores = evaluate_folders(predictions, truths, labelling, workers, rules, cases)
    try:
        write_text(kept, json.dumps({"key": key, "scores": [asdict(s) for s in scores]}, indent=1))
    except OSError as error:  # somebody else's folder
        LOG.warning("scores are not kept: %s", error)
    return scores
