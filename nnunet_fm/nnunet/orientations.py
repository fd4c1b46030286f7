"""How the images that a model was trained on are stored, and whether others are stored alike.

nnU-Net's usual readers hand the axes of a file to the network as they are stored.
"""

from collections.abc import Collection, Iterable
from pathlib import Path

from nnunet_fm.data.grids import read_grid
from nnunet_fm.internal.errors import InputError
from nnunet_fm.nnunet.file_names import GROUND_TRUTH
from nnunet_fm.nnunet.run_record import read_record

TURNING_READERS = ("NibabelIOWithReorient", "SimpleITKIOWithReorient")
SAME_AXIS = str.maketrans("RLAPSI", "LLPPSS")  # without the direction


def orientation_of(file: Path) -> str:
    """Read how an image is stored, e.g. `LPS`; empty if its header does not say so."""
    try:
        grid = read_grid(file)
    except InputError:
        return ""
    return grid.orientation if grid.oriented else ""


def label_orientations(dataset: Path, cases: Iterable[str], ending: str) -> tuple[str, ...]:
    """List the orientations of the label files of some cases, which are those of their images.

    Args:
        dataset: the preprocessed dataset's folder.
        cases: names of the cases.
        ending: ending of the label files.
    """
    files = [dataset / GROUND_TRUTH / f"{case}{ending}" for case in cases]
    found = {orientation_of(file) for file in files if file.is_file()}
    return tuple(sorted(found - {""}))


def trained_orientations(model: Path) -> tuple[str, ...]:
    """Return the orientations that the folds of a model were trained on; empty if unknown."""
    records = [read_record(fold) for fold in sorted(model.glob("fold_*"))]
    found = {name for record in records if record for name in record.orientations}
    return tuple(sorted(found))


def orientation_problem(stored: str, trained: Collection[str], mirrored: bool) -> str:
    """Describe why a model cannot predict an image as it is stored; empty if it can.

    Args:
        stored: orientation of the image; empty if unknown.
        trained: orientations of the images of the training; empty if unknown.
        mirrored: the model was trained on mirrored copies, so that only the order of the axes
            matters.
    """
    if not stored or not trained or stored in trained:
        return ""
    orders = {name.translate(SAME_AXIS) for name in trained}
    if mirrored and stored.translate(SAME_AXIS) in orders:
        return ""
    return (
        f"stored as {stored}, but the model was trained on images stored as "
        f"{' or '.join(sorted(trained))}, and its reader does not turn them; store it so"
    )
