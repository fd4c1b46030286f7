"""The raw images of an nnU-Net dataset."""

from collections.abc import Sequence
from pathlib import Path

from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_fm.internal.errors import MissingFileError
from nnunet_fm.internal.messages import some
from nnunet_fm.nnunet.file_names import DATASET_JSON


def raw_images(dataset: str, cases: Sequence[str], raw: Path) -> dict[str, list[Path]]:
    """Find the image files of training cases.

    Args:
        dataset: full name, e.g. `Dataset008_BraTS21`.
        cases: names of the cases.
        raw: nnUNet_raw.

    Returns:
        For each case, one file per channel.

    Raises:
        FileNotFoundError: there is no such dataset, or a case has no images.
    """
    folder = raw / dataset
    if not (folder / DATASET_JSON).is_file():
        raise MissingFileError(
            f"{folder} holds no {DATASET_JSON}; the raw images are needed, see nnUNet_raw"
        )
    known = get_filenames_of_train_images_and_targets(str(folder))
    missing = [case for case in cases if case not in known]
    if missing:
        raise MissingFileError(f"{folder} has no images of {some(missing)}")
    return {case: [Path(image) for image in known[case]["images"]] for case in cases}
