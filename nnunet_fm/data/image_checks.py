"""Check the images of a case before any long work starts."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.filebasedimages import ImageFileError

from nnunet_fm.data.grids import Grid, orientation_conflict, stacking_problem
from nnunet_fm.data.image_size import UnreadableImageError, check_header
from nnunet_fm.internal.errors import MissingFileError
from nnunet_fm.internal.files import visible_files
from nnunet_fm.internal.messages import reason_of

IMAGE_ENDINGS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr", ".dcm")


def find_problem(files: Mapping[str, Path]) -> str | None:
    """Describe the first problem of a case's images, or return None.

    Problems are unreadable files, different grids, complex or colour voxels, and NaN or infinite
    ones.

    Args:
        files: file of each channel.
    """
    try:
        return _grid_problem(files) or _voxel_problem(files)
    except (RuntimeError, ValueError, OSError, EOFError, MemoryError, ImageFileError) as error:
        reason = reason_of(error)
        return f"unreadable: {reason.splitlines()[-1]}"


def find_cases(
    folder: Path, channels: int, ending: str
) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """Find the cases of a folder of nnU-Net input images (`CASE_0000<ending>` and so on).

    Args:
        folder: input images; hidden files are skipped.
        channels: number of input channels of the model.
        ending: of the dataset's files, e.g. `.nii.gz`.

    Returns:
        The images of each usable case in the order of the channels; and what is wrong, by case or
        file name, with every other image in the folder.

    Raises:
        FileNotFoundError: no folder, or no image in it.
    """
    if not folder.is_dir():
        raise MissingFileError(f"input folder {folder} does not exist")
    files = [path for path in visible_files(folder, "") if path.is_file()]
    cases: dict[str, dict[str, Path]] = {}
    problems: dict[str, str] = {}
    for path in files:
        named = split_channel(path.name, ending)
        if named:
            case, channel = named
            cases.setdefault(case, {})[channel] = path
        elif path.name.endswith(ending):
            problems[path.name] = f"not named CASE_0000{ending} (four digits for the channel)"
        elif path.name.lower().endswith(IMAGE_ENDINGS):
            problems[path.name] = f"another file ending than the model's {ending}"
    if not cases and not problems:
        raise MissingFileError(
            f"{folder} holds no images named CASE_0000{ending}, CASE_0001{ending}, ..."
        )
    needed = [f"{number:04d}" for number in range(channels)]
    for case, images in cases.items():
        problem = _case_problem(images, needed, ending)
        if problem:
            problems[case] = problem
    usable = {
        case: [images[channel] for channel in needed]
        for case, images in cases.items()
        if case not in problems
    }
    return usable, problems


def split_channel(file_name: str, ending: str) -> tuple[str, str] | None:
    """Split `CASE_0000<ending>` into the case and the four digits; None for other names."""
    match = re.fullmatch(rf"(.+)_(\d{{4}}){re.escape(ending)}", file_name)
    return (match[1], match[2]) if match else None


def _case_problem(files: Mapping[str, Path], needed: Sequence[str], ending: str) -> str | None:
    if set(files) != set(needed):
        return f"channels {', '.join(files)} found, {', '.join(needed)} needed"
    return find_problem(files) if ending in (".nii", ".nii.gz") else _size_problem(files)


def _size_problem(files: Mapping[str, Path]) -> str | None:
    """Describe the first image that does not fit into the memory; other formats have readers."""
    for path in files.values():
        try:
            check_header(_header(path))
        except UnreadableImageError as error:
            return str(error)
        except RuntimeError:
            return None  # a format that nnU-Net reads with another library
    return None


def _grid_problem(files: Mapping[str, Path]) -> str | None:
    """Compare the places of a case's images (headers only)."""
    headers = {channel: _header(path) for channel, path in files.items()}
    name = next(iter(headers))
    for channel, header in headers.items():
        check_header(header)
        if header.GetDimension() != 3:
            return f"{channel} has {header.GetDimension()} dimensions, 3 are needed"
        problem = stacking_problem(Grid.of_image(header), Grid.of_image(headers[name]))
        if problem:
            return f"different grids: {problem} ({channel} against {name})"
    return None


def _header(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def _voxel_problem(files: Mapping[str, Path]) -> str | None:
    """Count NaN and infinite voxels, with nibabel: SimpleITK silently turns NaN into 0."""
    for channel, path in files.items():
        image = nib.load(path)
        conflict = orientation_conflict(image.header)
        if conflict:
            return f"{channel} {conflict}"
        dtype = image.get_data_dtype()
        if dtype.kind not in "iuf":
            kind = "complex numbers" if dtype.kind == "c" else f"colour voxels ({dtype})"
            return f"{channel} holds {kind}; allowed: one grey value a voxel"
        values = np.asarray(image.dataobj)  # read whole: a truncated file shows only then
        if values.dtype.kind == "f":
            wrong = int((~np.isfinite(values)).sum())
            if wrong:
                return f"{wrong} voxels of {channel} are NaN or infinite"
    return None
