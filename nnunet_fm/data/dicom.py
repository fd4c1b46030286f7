"""Read the DICOM series in a folder, one file a slice.

SimpleITK sorts and reads the slices; pydicom says what the files are.
"""

import locale
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.errors import InvalidDicomError

from nnunet_fm.data.grids import Grid
from nnunet_fm.data.volume_errors import BadVolumeError

TAGS = [
    "Modality",
    "ImageType",
    "SamplesPerPixel",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "ComplexImageComponent",
]
NO_IMAGES = ("SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "PR", "SR", "KO")  # modalities
NO_MAGNITUDE = ("P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY")  # of ImageType
SAME_DIRECTION = 1e-3  # of the cosines of slices


@contextmanager
def preserve_locale() -> Iterator[None]:
    """Restore the process's locale afterwards.

    GDCM sets it to "C", after which Python reads text files as ASCII.
    """
    before = locale.setlocale(locale.LC_ALL)
    try:
        yield
    finally:
        locale.setlocale(locale.LC_ALL, before)


def read_dicom(folder: Path) -> nib.Nifti1Image:
    """Read the one DICOM series in a folder.

    Raises:
        BadVolumeError: no series or several; multi-frame, colour, phase or segmentation; slices are
            missing, or several lie at one position.
    """
    with preserve_locale():
        series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
        if len(series) != 1:
            raise BadVolumeError(
                f"{folder.name} holds {len(series)} DICOM series; allowed: one per folder"
            )
        files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
        headers = [_header(Path(file)) for file in files]
        _check_content(folder, headers)
        _check_positions(folder, headers)
        return _read_slices(folder, files)


def _header(file: Path) -> pydicom.Dataset:
    try:
        return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS)
    except (InvalidDicomError, OSError, ValueError) as error:
        raise BadVolumeError(f"{file.name} is not readable DICOM: {error}") from None


def _check_content(folder: Path, headers: Sequence[pydicom.Dataset]) -> None:
    """Raise BadVolumeError if the files do not hold one magnitude image each, of one channel."""
    for header in headers:
        modality = str(header.get("Modality", ""))
        if modality in NO_IMAGES:
            raise BadVolumeError(
                f"DICOM series {folder.name} is {modality}, no image; allowed: an MRI volume"
            )
        if int(header.get("SamplesPerPixel") or 1) > 1:
            raise BadVolumeError(
                f"DICOM series {folder.name} holds colour images; allowed: an MRI volume"
            )
        frames = int(header.get("NumberOfFrames") or 1)
        if frames > 1:
            raise BadVolumeError(
                f"DICOM series {folder.name} is multi-frame ({frames} images in one file), which "
                "is not read here; convert it to NIfTI, e.g. with dcm2niix, and give that"
            )
        kinds = header.get("ImageType") or []  # a text if there is one
        words = {str(word).upper() for word in ([kinds] if isinstance(kinds, str) else kinds)}
        component = str(header.get("ComplexImageComponent", "MAGNITUDE"))
        if words & set(NO_MAGNITUDE) or component not in ("MAGNITUDE", "MIXED", ""):
            raise BadVolumeError(
                f"DICOM series {folder.name} holds phase, real or imaginary images; "
                "allowed: magnitude images"
            )


def _check_positions(folder: Path, headers: Sequence[pydicom.Dataset]) -> None:
    """Check that no slice is missing, which would distort the geometry, and none is there twice."""
    if not all("ImagePositionPatient" in header for header in headers):
        raise BadVolumeError(
            f"DICOM series {folder.name} has slices without a position; allowed: an MRI volume"
        )
    directions = [h.ImageOrientationPatient for h in headers if "ImageOrientationPatient" in h]
    if directions and np.ptp(np.array(directions, float), axis=0).max() > SAME_DIRECTION:
        raise BadVolumeError(
            f"DICOM series {folder.name} has slices in several directions (a localiser); "
            "allowed: an MRI volume"
        )
    positions = np.array([header.ImagePositionPatient for header in headers], float)
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    if len(np.unique(positions, axis=0)) < len(headers):
        raise BadVolumeError(
            f"DICOM series {folder.name} has several images at one position (echoes, time points, "
            "or magnitude and phase); put each into a folder of its own, or convert: dcm2niix"
        )
    if len(steps) and steps.max() > 1.5 * np.median(steps):
        raise BadVolumeError(
            f"DICOM series {folder.name} lacks slices: "
            f"steps of {steps.min():.2f} to {steps.max():.2f} mm"
        )


def _read_slices(folder: Path, files: Sequence[str]) -> nib.Nifti1Image:
    try:
        image = sitk.ReadImage(files, sitk.sitkFloat32)
    except RuntimeError as error:
        raise BadVolumeError(
            f"DICOM series {folder.name} cannot be read: {str(error).splitlines()[-1]}"
        ) from None
    if image.GetDimension() != 3:
        raise BadVolumeError(
            f"DICOM series {folder.name} is {image.GetDimension()}-D; allowed: an MRI volume"
        )
    return nib.Nifti1Image(
        sitk.GetArrayFromImage(image).transpose(2, 1, 0), Grid.of_image(image).affine
    )
