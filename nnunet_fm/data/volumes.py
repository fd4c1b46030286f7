"""Reading one MRI volume, whatever the file, and saying what is wrong with it."""

import hashlib
import locale
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from jaxtyping import Bool, Float
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from nnunet_fm.internal.errors import InputError

Volume = Float[np.ndarray, "z y x"]
Mask = Bool[np.ndarray, "z y x"]

ORIENTATION = ("L", "P", "S")
SMALLEST_SIDE, MOST_VOXELS = 16, 1 << 29
SAME_PLACE = 0.01  # mm
GREY_LEVELS = 1000  # that voxels are rounded to before they are compared
OFF_GRID = 0.3183  # so that whole numbers do not fall on the edge between two levels


class BadVolumeError(InputError):
    """A volume that cannot be used; the message says why in one line."""


def read_volume(path: Path) -> tuple[Volume, nib.Nifti1Image]:
    """Read a NIfTI file or the DICOM series in a folder.

    Returns:
        The voxels as float32 in (z, y, x): from the feet up, the first row of a slice at the
        forehead, the first column at the patient's right, as DICOM and BraTS have it; and the image
        in the same orientation, for its geometry.

    Raises:
        BadVolumeError: unreadable, not 3-D, too small or large, constant, or not finite.
    """
    if path.is_dir():
        with locale_kept():
            image = _read_dicom(path)
    else:
        image = _read_nifti(path)
    if len(image.shape) == 4 and image.shape[3] == 1:
        image = image.slicer[..., 0]
    if len(image.shape) != 3:
        raise BadVolumeError(
            f"{len(image.shape)}-D, shape {image.shape}; allowed: one 3-D volume a file"
        )
    if min(image.shape) < 2 or max(image.shape) < SMALLEST_SIDE:
        raise BadVolumeError(
            f"shape {image.shape}; allowed: a volume of at least {SMALLEST_SIDE} voxels a side"
        )
    if int(np.prod(image.shape)) > MOST_VOXELS:
        raise BadVolumeError(
            f"shape {image.shape} is over {MOST_VOXELS / 1e6:.0f} million voxels; resample it first"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # overflow in scaling shows as a value that is not finite
            image = canonical(image)
            voxels = np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged"))
    except Exception as error:
        raise BadVolumeError(f"truncated or damaged ({type(error).__name__}: {error})") from None
    if not np.isfinite(voxels).all():
        bad = 1 - np.isfinite(voxels).mean()
        raise BadVolumeError(f"{bad:.1%} of the voxels are NaN or infinite; allowed: none")
    if voxels.min() == voxels.max():
        raise BadVolumeError(f"every voxel is {voxels.min():g}; allowed: an image with contrast")
    return np.ascontiguousarray(voxels.transpose(2, 1, 0)), image


def voxels_sha256(volume: Volume) -> str:
    """Hash of what a volume shows.

    Copies with another header, orientation, compression, number type, scaling or zero margin have
    the same.

    Args:
        volume: as `read_volume` gives it.
    """
    there = np.nonzero(volume)
    shown = volume[tuple(slice(axis.min(), axis.max() + 1) for axis in there)].astype(np.float64)
    low, high = shown.min(), shown.max()
    shares = (shown - low) / max(high - low, np.finfo(float).tiny)
    levels = np.floor(shares * GREY_LEVELS + OFF_GRID).astype(np.uint16)
    return hashlib.sha256(f"{levels.shape}".encode() + levels.tobytes()).hexdigest()


@contextmanager
def locale_kept() -> Iterator[None]:
    """The process's locale as it was: GDCM sets it to "C", after which Python reads text files as ASCII."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        yield
    finally:
        locale.setlocale(locale.LC_ALL, before)


def read_mask(path: Path, like: nib.Nifti1Image) -> Mask:
    """Read a brain mask that lies on the voxels of `like`.

    Raises:
        BadVolumeError: unreadable, of another shape, or empty.
    """
    try:
        image = canonical(_read_nifti(path))
        voxels = np.asarray(image.dataobj)
    except BadVolumeError:
        raise
    except Exception as error:
        raise BadVolumeError(
            f"mask {path.name} is damaged ({type(error).__name__}: {error})"
        ) from None
    if image.shape != like.shape:
        raise BadVolumeError(
            f"mask {path.name} has shape {image.shape}, the volume {like.shape}; allowed: the same"
        )
    if not np.allclose(image.affine, like.affine, atol=SAME_PLACE):
        raise BadVolumeError(
            f"mask {path.name} lies elsewhere than the volume: their affines differ"
        )
    mask = voxels.transpose(2, 1, 0) > 0
    if not mask.any():
        raise BadVolumeError(f"mask {path.name} is empty")
    return mask


def check_same_grid(images: Sequence[nib.Nifti1Image]) -> None:
    """Refuse images that do not lie on the same voxels.

    Raises:
        BadVolumeError: shapes or affines differ.
    """
    for image in images[1:]:
        same_shape = image.shape == images[0].shape
        if not same_shape or not np.allclose(image.affine, images[0].affine, atol=SAME_PLACE):
            what = (
                f"shapes {images[0].shape} and {image.shape}"
                if not same_shape
                else "affines that differ"
            )
            raise BadVolumeError(
                f"its session's sequences have {what}; registered ones lie on the same grid"
            )


def _read_nifti(path: Path) -> nib.Nifti1Image:
    if not path.is_file():
        raise BadVolumeError(f"{path} does not exist")
    try:
        image = nib.load(path)
    except Exception as error:
        raise BadVolumeError(
            f"{path.name} is no readable NIfTI ({type(error).__name__}: {error})"
        ) from None
    if not isinstance(image, nib.Nifti1Image):
        raise BadVolumeError(f"{path.name} is a {type(image).__name__}; allowed: NIfTI")
    return image


def canonical(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """The same image with its axes flipped and permuted to L, P, S (increasing towards them)."""
    change = ornt_transform(io_orientation(image.affine), axcodes2ornt(ORIENTATION))
    return image.as_reoriented(change)


def _read_dicom(folder: Path) -> nib.Nifti1Image:
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        raise BadVolumeError(
            f"{folder.name} holds {len(series)} DICOM series; allowed: one a folder"
        )
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
    try:
        image = sitk.ReadImage(files, sitk.sitkFloat32)
    except RuntimeError as error:
        raise BadVolumeError(
            f"DICOM series {folder.name} cannot be read: {str(error).splitlines()[-1]}"
        ) from None
    if image.GetNumberOfComponentsPerPixel() != 1 or image.GetDimension() != 3:
        raise BadVolumeError(
            f"DICOM series {folder.name} holds colour pictures; allowed: an MRI volume"
        )
    _check_steps(folder, files)
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, :3] = (
        np.diag([-1, -1, 1]) @ direction
    )  # DICOM's axes point left and posterior, NIfTI's right and anterior
    affine[:3, 3] = np.diag([-1, -1, 1]) @ np.array(image.GetOrigin())
    return nib.Nifti1Image(sitk.GetArrayFromImage(image).transpose(2, 1, 0), affine)


def _check_steps(folder: Path, files: Sequence[str]) -> None:
    """Refuse a series with slices missing: its geometry would be distorted."""
    reader = sitk.ImageFileReader()
    places = []
    for file in files:
        reader.SetFileName(file)
        reader.ReadImageInformation()
        places.append(np.array(reader.GetOrigin()))
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    if len(steps) and steps.max() > 1.5 * np.median(steps):
        raise BadVolumeError(
            f"DICOM series {folder.name} lacks slices: steps of {steps.min():.2f} to {steps.max():.2f} mm"
        )
