"""Read MRI volumes from NIfTI files and DICOM series, and explain why one cannot be used."""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Float
from nibabel.affines import voxel_sizes
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from nnunet_fm.data.dicom import read_dicom
from nnunet_fm.data.grids import (
    SAME_GRID_VOXELS,
    Grid,
    grid_difference,
    orientation_conflict,
    reorient,
    stacking_problem,
)
from nnunet_fm.data.image_size import UnreadableImageError, check_size
from nnunet_fm.data.volume_errors import BadVolumeError as BadVolumeError
from nnunet_fm.internal.errors import InputError

Volume = Float[np.ndarray, "z y x"]
Mask = Bool[np.ndarray, "z y x"]

ORIENTATION = ("L", "P", "S")
SMALLEST_SIDE, MOST_VOXELS = 16, 1 << 29
MOST_LABELS = 20  # a volume with no more distinct values is a label map
SAMPLE = 1 << 14  # voxels looked at first
ZERO_STEPS = 0.501  # a value is 0 up to half a step of the stored numbers, and their rounding
EXACT_ZERO = "-exact0"  # marks what was made of a volume whose 0 is inexact in the file
GREY_LEVELS = 1000  # voxels are rounded to this many levels before they are hashed
QUANTISATION_OFFSET = 0.3183  # keeps whole numbers away from the edge between two levels


def voxel_size(image: nib.Nifti1Image) -> tuple[float, float, float]:
    """Return the size of a voxel in mm, (z, y, x), of an image that `read_volume` returned."""
    x, y, z = (float(side) for side in voxel_sizes(image.affine))
    return z, y, x


def read_volume(path: Path) -> tuple[Volume, nib.Nifti1Image]:
    """Read a NIfTI file or the DICOM series in a folder.

    Of whole numbers that are stored with an offset, the one nearest to 0 is read as 0: it stands
    for the background of a skull-stripped image, which scaling turns into 0.001 or -0.007.

    Returns:
        The voxels as float32 in (z, y, x): slices from the feet up, the first row of a slice at
        the forehead, the first column at the patient's right, as in DICOM and BraTS; and the image
        in the same orientation, for its geometry.

    Raises:
        BadVolumeError: unreadable, not 3-D, without orientation, too small or large, constant, not
            finite, complex, colour, or a mask or label map (few distinct values).
    """
    image = read_dicom(path) if path.is_dir() else _read_nifti(path)
    step = _rounding_step(image)
    if len(image.shape) == 4 and image.shape[3] == 1:
        image = image.slicer[..., 0]
    _check_shape(image.shape)
    _check_orientation(image)
    try:
        with warnings.catch_warnings():
            # an overflow in scaling shows as a value that is not finite
            warnings.simplefilter("ignore")
            image = to_lps(image)
            voxels = np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged"))
    except Exception as error:
        raise BadVolumeError(f"truncated or damaged ({type(error).__name__}: {error})") from None
    if step:
        voxels = np.where(np.abs(voxels) <= ZERO_STEPS * step, np.float32(0), voxels)
    if not np.isfinite(voxels).all():
        bad = 1 - np.isfinite(voxels).mean()
        raise BadVolumeError(f"{bad:.1%} of the voxels are NaN or infinite; allowed: none")
    if voxels.min() == voxels.max():
        raise BadVolumeError(f"every voxel is {voxels.min():g}; allowed: an image with contrast")
    _refuse_labels(voxels)
    return np.ascontiguousarray(voxels.transpose(2, 1, 0)), image


def zero_is_rounded(path: Path) -> bool:
    """Return whether a NIfTI file holds whole numbers with an offset, so that 0 may be inexact."""
    try:
        return not path.is_dir() and _rounding_step(_read_nifti(path)) > 0
    except BadVolumeError:
        return False


def _rounding_step(image: nib.Nifti1Image) -> float:
    """Return the step between values, of whole numbers that are stored with an offset; else 0."""
    slope = getattr(image.dataobj, "slope", 1.0)
    offset = getattr(image.dataobj, "inter", 0.0)
    is_whole = image.get_data_dtype().kind in "iu"
    return abs(float(slope)) if is_whole and offset % slope else 0.0


def voxels_sha256(volume: Volume) -> str:
    """Hash what a volume shows.

    Copies with another header, orientation, compression, number type, scaling or zero margin have
    the same hash.

    Args:
        volume: as returned by `read_volume`.
    """
    nonzero = np.nonzero(volume)
    box = tuple(slice(axis.min(), axis.max() + 1) for axis in nonzero)
    cropped = volume[box].astype(np.float64)
    low, high = cropped.min(), cropped.max()
    shares = (cropped - low) / max(high - low, np.finfo(float).tiny)
    levels = np.floor(shares * GREY_LEVELS + QUANTISATION_OFFSET).astype(np.uint16)
    return hashlib.sha256(f"{levels.shape}".encode() + levels.tobytes()).hexdigest()


def read_mask(path: Path, like: nib.Nifti1Image) -> Mask:
    """Read a brain mask on the voxel grid of `like`.

    Raises:
        BadVolumeError: unreadable, on another grid, or empty.
    """
    try:
        image = nib.squeeze_image(_read_nifti(path))
        voxels = np.asarray(image.dataobj)
    except BadVolumeError:
        raise
    except Exception as error:
        raise BadVolumeError(
            f"mask {path.name} is damaged ({type(error).__name__}: {error})"
        ) from None
    if voxels.ndim != 3:
        raise BadVolumeError(f"mask {path.name} has shape {image.shape}; allowed: one 3-D mask")
    stored = _grid(image)
    wanted = _grid(like)
    difference = grid_difference(stored, wanted, SAME_GRID_VOXELS)
    if difference:
        raise BadVolumeError(f"mask {path.name} lies elsewhere than the volume: {difference}")
    mask = reorient(voxels.T, stored, wanted) > 0
    if not mask.any():
        raise BadVolumeError(f"mask {path.name} is empty")
    return mask


def check_same_grid(images: Sequence[nib.Nifti1Image]) -> None:
    """Check that images of one session lie on the same voxels.

    Raises:
        BadVolumeError: shapes or affines differ.
    """
    for image in images[1:]:
        difference = stacking_problem(_grid(image), _grid(images[0]))
        if difference:
            raise BadVolumeError(
                f"its session's sequences lie in different places: {difference}; registered ones "
                "lie on the same grid"
            )


def to_lps(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """Flip and permute an image's axes to increase towards left, posterior and superior."""
    change = ornt_transform(io_orientation(image.affine), axcodes2ornt(ORIENTATION))
    return image.as_reoriented(change)


def _grid(image: nib.Nifti1Image) -> Grid:
    try:
        return Grid.of_nifti(image)
    except InputError as error:
        raise BadVolumeError(str(error)) from None


def _check_orientation(image: nib.Nifti1Image) -> None:
    """Refuse a NIfTI file that does not say which way its axes point, or says it twice."""
    conflict = orientation_conflict(image.header)
    if conflict:
        raise BadVolumeError(f"it {conflict}")
    if image.header["qform_code"] == 0 and image.header["sform_code"] == 0:
        raise BadVolumeError(
            "it stores no orientation (qform and sform codes are 0), so its slices may lie in any "
            "plane; write the affine that it should have, e.g. with nibabel: "
            "Nifti1Image(image.dataobj, affine)"
        )


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) != 3:
        raise BadVolumeError(f"{len(shape)}-D, shape {shape}; allowed: one 3-D volume per file")
    if min(shape) < 2 or max(shape) < SMALLEST_SIDE:
        raise BadVolumeError(
            f"shape {shape}; allowed: a volume of at least {SMALLEST_SIDE} voxels a side"
        )
    if int(np.prod(shape)) > MOST_VOXELS:
        raise BadVolumeError(
            f"shape {shape} is over {MOST_VOXELS / 1e6:.0f} million voxels; resample it first"
        )


def _refuse_labels(voxels: np.ndarray) -> None:
    """Raise BadVolumeError for a mask or label map, which has few distinct values."""
    flat = voxels.ravel()
    if len(np.unique(flat[:: max(1, flat.size // SAMPLE)])) > MOST_LABELS:
        return  # saves sorting the whole volume
    values = np.unique(flat)
    if len(values) <= MOST_LABELS:
        listed = ", ".join(f"{value:g}" for value in values[:6])
        more = ", ..." if len(values) > 6 else ""
        raise BadVolumeError(
            f"a mask or label map, no image: its only values are {listed}{more}; "
            f"allowed: more than {MOST_LABELS} grey values"
        )


def _read_nifti(path: Path) -> nib.Nifti1Image:
    if not path.is_file():
        raise BadVolumeError(f"{path} does not exist")
    try:
        image = nib.load(path)
    except Exception as error:
        raise BadVolumeError(
            f"{path.name} is not a readable NIfTI file ({type(error).__name__}: {error})"
        ) from None
    if not isinstance(image, nib.Nifti1Image):
        raise BadVolumeError(f"{path.name} is a {type(image).__name__}; allowed: NIfTI")
    dtype = image.get_data_dtype()
    try:
        check_size(path, image.shape, dtype.itemsize)
    except UnreadableImageError as error:
        raise BadVolumeError(str(error)) from None
    if dtype.kind == "c":
        raise BadVolumeError(f"{path.name} holds complex numbers; allowed: the magnitude image")
    if dtype.kind not in "iuf":
        raise BadVolumeError(f"{path.name} holds colour voxels ({dtype}); allowed: one grey value")
    return image
