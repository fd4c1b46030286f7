"""Read the files of BraTS cases before anything is written: problems, labels, orientation."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
from nibabel.orientations import aff2axcodes

from nnunet_fm.data.brats_cases import SEGMENTATION, BratsCase
from nnunet_fm.data.image_checks import find_problem
from nnunet_fm.data.label_images import foreground, read_labels
from nnunet_fm.data.label_schemes import SCHEMES
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import reason_of


@dataclass(frozen=True)
class CheckedCase:
    """A case, and what its files hold.

    Attributes:
        case: the case.
        problem: why it cannot be used; empty if it can.
        labels: values in its segmentation; empty if it has none.
        orientation: of its images, e.g. `LPS`.
    """

    case: BratsCase
    problem: str = ""
    labels: frozenset[int] = frozenset()
    orientation: str = ""


def check_case(case: BratsCase) -> CheckedCase:
    """Read the files of a case."""
    if case.repeated:
        return CheckedCase(case, f"two files of one channel, {'; '.join(case.repeated)}")
    if not case.files:
        return CheckedCase(case, f"no channel among its files: {case.unused}")
    problem = find_problem(case.files)
    if problem:
        return CheckedCase(case, problem)
    segmentation = case.files.get(SEGMENTATION)
    try:
        labels = _labels(segmentation) if segmentation else frozenset()
    except (InputError, MemoryError) as error:
        return CheckedCase(case, reason_of(error))
    orientation = "".join(aff2axcodes(nib.load(next(iter(case.files.values()))).affine))
    return CheckedCase(case, "", labels, orientation)


def _labels(segmentation: Path) -> frozenset[int]:
    """Return the labels of a file, without 0.

    Raises:
        ValueError: values that are no whole numbers, or that no challenge has.
    """
    labels = foreground(read_labels(segmentation).labels)
    strange = sorted(labels - {label for s in SCHEMES.values() for label in s.labels})
    if strange:
        raise InputError(
            f"label {', '.join(map(str, strange))} in {segmentation.name}, which no scheme has"
        )
    return labels
