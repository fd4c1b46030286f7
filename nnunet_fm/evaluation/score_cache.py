"""Score cache, invalidated when a file or a metric option changes."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from nnunet_fm.evaluation.labels import LabelScheme
from nnunet_fm.evaluation.segmentation import CaseScore, MetricOptions, evaluate_folders
from nnunet_fm.internal.atomic_files import write_text
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.files import files_sha256
from nnunet_fm.internal.json_files import read_object

LOG = logging.getLogger(__name__)
CACHE_FILE = "nnunet_fm_scores.json"
VERSION = 2  # raised whenever the same files get other scores


def cached_scores(
    predictions: Path,
    truths: Path,
    scheme: LabelScheme,
    cases: Sequence[str],
    options: MetricOptions,
    workers: int = 2,
    problems: dict[str, str] | None = None,
) -> list[CaseScore]:
    """Score a folder as `evaluate_folders` does, or read the scores that an earlier call wrote.

    Args:
        predictions: folder with `CASE<ending>`; the cache file is written into it.
        truths: folder with `CASE<ending>`.
        scheme: the regions to score.
        cases: names of the cases to score; each must have a prediction.
        options: metric options.
        workers: number of processes.
        problems: see `evaluate_pairs`; scores without all cases are not cached.

    Raises:
        FileNotFoundError: see `evaluate_folders`.
        ValueError: see `evaluate_folders`.
    """
    cache_file = predictions / CACHE_FILE
    key = _key(predictions, truths, scheme, cases, options)
    if cache_file.is_file():
        try:
            content = read_object(cache_file)
            if content.get("key") == key:
                return [CaseScore(**score) for score in content["scores"]]
        except (InputError, TypeError, KeyError) as error:
            LOG.warning("scores are computed again: %s", error)
    scores = evaluate_folders(predictions, truths, scheme, workers, options, cases, problems)
    if problems:
        return scores
    content = {"key": key, "scores": [asdict(score) for score in scores]}
    try:
        write_text(cache_file, json.dumps(content, indent=1))
    except OSError as error:  # a folder of another user, say
        LOG.warning("scores are not cached: %s", error)
    return scores


def _key(
    predictions: Path,
    truths: Path,
    scheme: LabelScheme,
    cases: Sequence[str],
    options: MetricOptions,
) -> str:
    """SHA-256 of everything that the scores depend on."""
    files = [
        folder / f"{case}{scheme.ending}"
        for case in sorted(cases)
        for folder in (predictions, truths)
    ]
    content = [VERSION, sorted(cases), asdict(scheme), asdict(options), files_sha256(files)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
