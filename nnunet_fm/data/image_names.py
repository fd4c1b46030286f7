"""Which files outside BIDS are no images, by the words of their names and folders."""

import re
from pathlib import Path

from nnunet_fm.data import bids

MASK_WORD = re.compile(
    r".*(mask|msk|seg|segm|segmented|segmentation|label|labelmap|lesion|tumou?r|roi)s?\d*"
    r"|gtv.*|ctv|ptv|wmh|consensus|annotations?|contours?|gt|groundtruth|goldstandard|atlas"
)
MAP_WORD = re.compile(".*maps?")
PHASE_WORD = re.compile("phase|pha|imag|imaginary")
MASK_FOLDER = re.compile("labels.*|masks?|seg|segmentations?|rois?|annotations?")
DERIVATIVE_FOLDER = "derivatives"


def find_fault(path: Path, root: Path) -> str:
    """Return why a NIfTI file below a folder is no image; empty if nothing in its name says so.

    A name that starts with `sub-` and consists of BIDS entities is read as such. In any other name
    and in the folders below `root`, single words such as `mask`, `roi`, `wmh` or `t1map` decide.

    Args:
        path: NIfTI file.
        root: folder that was given to search; of its own name only `labels...` counts, and the
            names above do not.
    """
    fault = fault_of_folders(path, root)
    if fault:
        return fault
    name = bids.parse_name(path.name)
    if name is not None:
        return name.fault()
    return fault_of_words(path.name.split(".nii")[0])


def fault_of_folders(path: Path, root: Path) -> str:
    """Return what the folders above a file say that it is, if that is no image; else nothing."""
    folders = [name.lower() for name in path.relative_to(root).parts[:-1]]
    if root.absolute().name.lower().startswith("labels"):
        return bids.MASK
    if any(map(MASK_FOLDER.fullmatch, folders)):
        return bids.MASK
    return bids.DERIVATIVE if DERIVATIVE_FOLDER in folders else ""


def fault_of_words(text: str) -> str:
    """Return what the single words of a name say that it is, if that is no image; else nothing."""
    plain = text.lower().replace("gold_standard", "goldstandard")
    words = re.split("[^a-z0-9]+", plain)
    for fault, pattern in (
        (bids.MASK, MASK_WORD),
        (bids.MAP, MAP_WORD),
        (bids.PHASE, PHASE_WORD),
    ):
        if any(map(pattern.fullmatch, words)):
            return fault
    return ""
