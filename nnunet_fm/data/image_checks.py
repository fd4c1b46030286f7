"""What can be wrong with the images of a case, found before any long work starts."""

import re
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.filebasedimages import ImageFileError

from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.messages import some


def case_problem(files: Mapping[str, Path]) -> str | None:
    """Unreadable files, different grids, NaN or infinite voxels: the first problem in words, or None.

    Args:
        files: channel name to file.
    """
    try:
        return _grid_problem(files) or _voxel_problem(files)
    except (RuntimeError, ValueError, OSError, EOFError, ImageFileError) as error:
        return f"unreadable: {str(error).strip().splitlines()[-1]}"


def check_input_folder(folder: Path, channels: int, ending: str) -> None:
    """Check a folder of nnU-Net input images (`CASE_0000<ending>` and so on).

    Raises:
        FileNotFoundError: no folder, or no image in it.
        ValueError: cases that lack a channel, or whose images cannot be used; all are counted, some
            are named.
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
    wanted = [f"{number:04d}" for number in range(channels)]
    problems = []
    for case, files in cases.items():
        missing = [number for number in wanted if number not in files]
        extra = [number for number in files if number not in wanted]
        if missing or extra:
            problems.append(
                f"{case}: channels {', '.join(files)} found, {', '.join(wanted)} needed"
            )
        elif ending in (".nii", ".nii.gz") and (problem := case_problem(files)):
            problems.append(f"{case}: {problem}")
    if problems:
        raise InputError(
            f"{len(problems)} of {len(cases)} cases in {folder} cannot be used: {some(problems)}"
        )


def _grid_problem(files: Mapping[str, Path]) -> str | None:
    """Images of one case that differ in size, spacing, origin or direction (headers only)."""
    headers = {channel: _header(path) for channel, path in files.items()}
    name, first = next(iter(headers.items()))
    for channel, header in headers.items():
        if len(header["size"]) != 3:
            return f"{channel} has {len(header['size'])} dimensions, 3 are needed"
        for what, value in header.items():
            if len(value) != len(first[what]) or not np.allclose(value, first[what], atol=1e-3):
                return f"different grids: {what} {value} of {channel}, {first[what]} of {name}"
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
    """NaN or infinite voxels, read with nibabel: SimpleITK turns NaN into 0 without a word."""
    for channel, path in files.items():
        image = nib.load(path)
        values = np.asarray(image.dataobj)  # read whole: a truncated file shows only then
        if values.dtype.kind == "f":
            wrong = int((~np.isfinite(values)).sum())
            if wrong:
                return f"{wrong} voxels of {channel} are NaN or infinite"
    return None
