"""Check the images of a case before any long work starts."""

import re
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.filebasedimages import ImageFileError

from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.messages import some


def find_problem(files: Mapping[str, Path]) -> str | None:
    """Describe the first problem of a case's images, or return None.

    Problems are unreadable files, different grids, and NaN or infinite voxels.

    Args:
        files: file of each channel.
    """
    try:
        return _grid_problem(files) or _voxel_problem(files)
    except (RuntimeError, ValueError, OSError, EOFError, ImageFileError) as error:
        return f"unreadable: {str(error).strip().splitlines()[-1]}"


def check_input_folder(folder: Path, channels: int, ending: str) -> None:
    """Check a folder of nnU-Net input images (`CASE_0000<ending>` and so on).

    Raises:
        FileNotFoundError: no folder, or no image in it.
        ValueError: cases lack a channel, or their images cannot be used. The message counts all
            of them and names the first.
    """
    if not folder.is_dir():
        raise MissingFileError(f"input folder {folder} does not exist")
    cases: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob(f"*{ending}")):
        match = re.fullmatch(rf"(.+)_(\d{{4}}){re.escape(ending)}", path.name)
        if match:
            cases.setdefault(match[1], {})[match[2]] = path
    if not cases:
        raise MissingFileError(
            f"{folder} holds no images named CASE_0000{ending}, CASE_0001{ending}, ..."
        )
    needed = [f"{number:04d}" for number in range(channels)]
    problems = []
    for case, files in cases.items():
        if set(files) != set(needed):
            problems.append(
                f"{case}: channels {', '.join(files)} found, {', '.join(needed)} needed"
            )
        elif ending in (".nii", ".nii.gz"):
            problem = find_problem(files)
            if problem:
                problems.append(f"{case}: {problem}")
    if problems:
        raise InputError(
            f"{len(problems)} of {len(cases)} cases in {folder} cannot be used: {some(problems)}"
        )


def _grid_problem(files: Mapping[str, Path]) -> str | None:
    """Compare size, spacing, origin and direction of a case's images (headers only)."""
    headers = {channel: _header(path) for channel, path in files.items()}
    name, first = next(iter(headers.items()))
    for channel, header in headers.items():
        if len(header["size"]) != 3:
            return f"{channel} has {len(header['size'])} dimensions, 3 are needed"
        for key, value in header.items():
            if len(value) != len(first[key]) or not np.allclose(value, first[key], atol=1e-3):
                return f"different grids: {key} {value} of {channel}, {first[key]} of {name}"
    return None


def _header(path: Path) -> dict[str, tuple[float, ...]]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return {
        "size": reader.GetSize(),
        "spacing": reader.GetSpacing(),
        "origin": reader.GetOrigin(),
        "direction": reader.GetDirection(),
    }


def _voxel_problem(files: Mapping[str, Path]) -> str | None:
    """Count NaN and infinite voxels, with nibabel: SimpleITK silently turns NaN into 0."""
    for channel, path in files.items():
        image = nib.load(path)
        values = np.asarray(image.dataobj)  # read whole: a truncated file shows only then
        if values.dtype.kind == "f":
            wrong = int((~np.isfinite(values)).sum())
            if wrong:
                return f"{wrong} voxels of {channel} are NaN or infinite"
    return None
