"""Folders of label files: their cases, and whether truth and prediction lie in one place."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_fm.data.grids import (
    ORIGIN_VOXELS,
    check_image,
    grid_difference,
    grid_offset,
    read_grid,
    reorient,
)
from nnunet_fm.data.image_checks import IMAGE_ENDINGS
from nnunet_fm.data.image_size import UnreadableImageError
from nnunet_fm.data.label_images import LabelImage, Labels, read_labels
from nnunet_fm.evaluation.labels import NO_FOLDER, LabelScheme
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.files import case_names
from nnunet_fm.internal.messages import counted, some

LOG = logging.getLogger(__name__)
NOTED_VOXELS = 0.1  # images further apart are compared, with a note


@dataclass(frozen=True)
class LabelPair:
    """The ground truth of a case, and its prediction, which need not exist."""

    case: str
    prediction: Path
    truth: Path

    def read(self, scheme: LabelScheme) -> tuple[LabelImage, Labels | None]:
        """Read the truth, and the prediction in the orientation of the truth's file.

        Args:
            scheme: names every label that may occur.

        Raises:
            ValueError: a file is no label file, or has a label that the scheme does not name.
        """
        truth = read_labels(self.truth)
        scheme.check_labels(truth.labels, self.truth)
        if not self.prediction.is_file():
            return truth, None
        prediction = read_labels(self.prediction)
        scheme.check_labels(prediction.labels, self.prediction)
        return truth, reorient(prediction.labels, prediction.grid, truth.grid)


def cases_of(truths: Path, ending: str) -> list[str]:
    """List the names of the cases whose ground truth is in a folder; hidden files are skipped.

    Raises:
        FileNotFoundError: no such folder, or no ground truth in it.
    """
    if not truths.is_dir():
        raise MissingFileError(f"{truths} is {NO_FOLDER}")
    known = case_names(truths, ending)
    if not known:
        raise MissingFileError(
            f"{truths} holds no *{ending}; the ground truth has to be CASE{ending}"
        )
    return known


def find_pairs(
    predictions: Path, truths: Path, ending: str, cases: Sequence[str] | None = None
) -> list[LabelPair]:
    """Pair the label files of two folders by name.

    Args:
        predictions: folder with `CASE<ending>`.
        truths: folder with `CASE<ending>`.
        ending: ending of all files.
        cases: names of the cases; all that have a truth if None.

    Raises:
        FileNotFoundError: a folder does not exist, a case has no truth, or none has a prediction.
        ValueError: a prediction has another ending than its truth.
    """
    if not predictions.is_dir():
        raise MissingFileError(f"{predictions} is {NO_FOLDER}")
    known = cases_of(truths, ending)
    unknown = sorted(set(cases or ()) - set(known))
    if unknown:
        raise MissingFileError(
            f"{truths} has no ground truth of {some(unknown)}; it has {some(known)}"
        )
    names = known if cases is None else sorted(cases)
    extra = set(case_names(predictions, ending)) - set(known)
    if extra and cases is None:
        LOG.warning(
            "not scored, as %s has no ground truth for them: %s",
            truths,
            some(sorted(extra)),
        )
    pairs = [LabelPair(n, predictions / f"{n}{ending}", truths / f"{n}{ending}") for n in names]
    _check_endings(predictions, pairs, ending)
    if not any(pair.prediction.is_file() for pair in pairs):
        raise MissingFileError(f"{predictions} holds no prediction for any of {some(names)}")
    return pairs


def _check_endings(predictions: Path, pairs: Sequence[LabelPair], ending: str) -> None:
    """Refuse predictions with another ending: they would be scored as missing."""
    files = {path.name.lower(): path.name for path in predictions.iterdir()}
    missing = [pair.case for pair in pairs if not pair.prediction.is_file()]
    names = [f"{case}{other}".lower() for case in missing for other in IMAGE_ENDINGS]
    found = [files[name] for name in names if name in files]
    if found:
        raise InputError(
            f"{predictions} has {some(found)}, but the truth has the ending {ending}; store both "
            "with one ending"
        )


def readable_pairs(pairs: Sequence[LabelPair]) -> tuple[list[LabelPair], dict[str, str]]:
    """Separate the pairs whose headers can be read from the others, and say why, by case.

    Raises:
        ValueError: none can.
    """
    problems: dict[str, str] = {}
    for pair in pairs:
        try:
            for path in (pair.truth, pair.prediction):
                if path.is_file():
                    check_image(path)
        except UnreadableImageError as error:
            problems[pair.case] = str(error)
    readable = [pair for pair in pairs if pair.case not in problems]
    if not readable:
        raise UnreadableImageError(next(iter(problems.values())))
    return readable, problems


def check_places(pairs: Sequence[LabelPair], ignore_origin: bool = False) -> None:
    """Check by their headers that every prediction lies where its truth does.

    Args:
        pairs: truths and predictions; missing predictions are skipped.
        ignore_origin: compare images of one grid even where their origins differ.

    Raises:
        ValueError: directions, spacing, size or origin differ; the message has the numbers.
    """
    most = float("inf") if ignore_origin else ORIGIN_VOXELS
    different: list[str] = []
    offsets: dict[str, float] = {}
    for pair in pairs:
        if not pair.prediction.is_file():
            continue
        stored = read_grid(pair.prediction)
        wanted = read_grid(pair.truth)
        difference = grid_difference(stored, wanted, most)
        if difference:
            different.append(f"{pair.case} ({difference})")
        elif grid_offset(stored, wanted) > NOTED_VOXELS:
            offsets[pair.case] = grid_offset(stored, wanted)
    if different:
        remedy = "both must be on one grid (is this the right folder?)"
        if not ignore_origin:
            remedy += "; where only the origin in the header is wrong, add --ignore-origin"
        raise InputError(
            f"{len(different)} of {counted(len(pairs), 'prediction')} lie elsewhere than their "
            "truth: "
            f"{some(different)}; {remedy}"
        )
    if offsets:
        LOG.warning(
            "the origins of %s differ from their truth's, by up to %.3g voxels (%s); "
            "they are compared voxel by voxel",
            counted(len(offsets), "prediction"),
            max(offsets.values()),
            some(list(offsets)),
        )
