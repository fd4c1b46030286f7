"""Where the voxels of an image lie, and whether two images lie on the same ones.

An image can be stored with its axes in any order and direction: the array differs, the place of
every voxel does not. Two images are therefore compared by their grids, and one of them is
re-oriented, before their arrays are.
"""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from jaxtyping import Float, Shaped
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes, apply_orientation, inv_ornt_aff, io_orientation

from nnunet_fm.data.image_files import gzip_problem
from nnunet_fm.data.image_size import UnreadableImageError, check_header
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import reason_of

ORIGIN_VOXELS = 1.0  # a truth and its prediction lie no further apart
SAME_GRID_VOXELS = 0.1  # masks, and images that are stacked, lie no further apart
# Rounding in headers: either moves a voxel at the edge of a head by less than half its size.
SPACING_TOLERANCE = 2e-3  # relative
DIRECTION_TOLERANCE_DEG = 0.2
ROUNDING_VOXELS = 1e-3
FORM_CODES = ("qform_code", "sform_code")
RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's axes to NIfTI's

Values = Shaped[np.ndarray, "..."]


@dataclass(frozen=True, eq=False)
class Grid:
    """The place of every voxel of an image.

    Attributes:
        shape: number of voxels along each axis as stored, x first; a picture is one slice.
        affine: voxel numbers to mm, in NIfTI's axes (right, anterior, superior).
        oriented: the header says how the axes lie; a NIfTI file whose codes of qform and sform are
            both 0 does not.

    Raises:
        ValueError: the affine puts several voxels in one place, or none anywhere.
    """

    shape: tuple[int, int, int]
    affine: Float[np.ndarray, "4 4"]
    oriented: bool = True

    def __post_init__(self) -> None:
        volume = np.linalg.det(self.affine[:3, :3]) if np.isfinite(self.affine).all() else 0.0
        if volume == 0:
            raise InputError("its header says nothing about the place of its voxels")

    @classmethod
    def of_nifti(cls, image: nib.Nifti1Image) -> "Grid":
        """Return the grid of a 3-D NIfTI image."""
        return cls(tuple(image.shape), np.asarray(image.affine, float))

    @classmethod
    def of_image(cls, image: "sitk.Image | sitk.ImageFileReader") -> "Grid":
        """Return the grid of a 2-D or 3-D image, or of a header that SimpleITK has read."""
        count = image.GetDimension()
        affine = np.eye(4)
        directions = np.reshape(image.GetDirection(), (count, count))
        affine[:count, :count] = directions * np.array(image.GetSpacing())
        affine[:count, 3] = image.GetOrigin()
        shape = (*image.GetSize(), 1)[:3]
        codes = [image.GetMetaData(key) for key in FORM_CODES if image.HasMetaDataKey(key)]
        return cls(shape, RAS_FROM_LPS @ affine, not codes or set(codes) != {"0"})

    @property
    def spacing(self) -> tuple[float, ...]:
        """Mm per voxel along each axis, x first."""
        return tuple(float(length) for length in voxel_sizes(self.affine))

    @property
    def orientation(self) -> str:
        """Where the axes run to, x first, e.g. `LPS`: to the left, the back and the head."""
        return "".join(aff2axcodes(self.affine))

    @property
    def directions(self) -> Float[np.ndarray, "3 3"]:
        """Unit vectors along the axes, one a column."""
        return self.affine[:3, :3] / voxel_sizes(self.affine)

    @property
    def centre(self) -> Float[np.ndarray, " 3"]:
        """The middle of the image, mm."""
        return self.affine[:3, :3] @ ((np.array(self.shape) - 1) / 2) + self.affine[:3, 3]


def read_grid(path: Path) -> Grid:
    """Read the grid of an image from its header.

    Raises:
        ValueError: the file is not an image of two or three dimensions, or its header gives two
            orientations.
    """
    if path.name.endswith((".nii", ".nii.gz")):
        _check_one_orientation(path)
    reader = _read_header(path)
    if reader.GetDimension() not in (2, 3):
        raise InputError(
            f"{path} has {reader.GetDimension()} dimensions, {reader.GetSize()}; allowed: one "
            "volume or slice per file"
        )
    return Grid.of_image(reader)


def _check_one_orientation(path: Path) -> None:
    try:
        image = nib.load(path)
    except Exception as error:  # nibabel raises several kinds
        raise _unreadable(path, error) from None
    if isinstance(image, nib.Nifti1Image):
        conflict = orientation_conflict(image.header)
        if conflict:
            raise InputError(f"{path} {conflict}")


def orientation_conflict(header: nib.Nifti1Header) -> str:
    """Say how the two affines of a NIfTI header disagree on where its axes point, if they do.

    Programs that read the qform then show another side of the patient as left than those that read
    the sform. Affines that only lie apart, e.g. in scanner and template coordinates, are common.
    """
    try:
        affines = [header.get_qform(coded=True)[0], header.get_sform(coded=True)[0]]
        names = ["".join(nib.aff2axcodes(affine)) for affine in affines if affine is not None]
    except (ValueError, TypeError):  # no rotation: reported where the image is read
        return ""
    if len(set(names)) < 2:
        return ""
    return (
        f"has two orientations: {names[0]} by its qform and {names[1]} by its sform; programs read "
        "one or the other. Copy the right one over the other, e.g. fslorient -copysform2qform"
    )


def check_image(path: Path) -> None:
    """Check by its header that an image can be read.

    Raises:
        UnreadableImageError: it cannot.
    """
    check_header(_read_header(path))


def upright(grid: Grid) -> Grid:
    """Return the grid in the radiological view: the picture's left is the patient's right.

    Axes run to the patient's left, to the back and to the head.
    """
    return _reoriented(grid, Grid(grid.shape, RAS_FROM_LPS))


def has_same_axes(first: Grid, second: Grid) -> bool:
    """Tell whether two grids store their axes in the same order and directions."""
    return np.array_equal(_change(first, second), [[0, 1], [1, 1], [2, 1]])


def reorient(values: Values, stored: Grid, wanted: Grid) -> Values:
    """Return an array with its axes in the order and directions of another grid.

    Args:
        values: an array (z, y, x), or (y, x) of a picture.
        stored: its grid.
        wanted: a grid that has the same voxels; see `grid_difference`.
    """
    volume = values if values.ndim == 3 else values[None]
    turned = apply_orientation(volume.T, _change(stored, wanted)).T
    return turned if values.ndim == 3 else turned[0]


def read_on_grid(path: Path, wanted: Grid, most_voxels: float = ORIGIN_VOXELS) -> Values:
    """Read the values of an image, re-oriented to a grid that has the same voxels.

    Args:
        path: image file of one channel.
        wanted: the grid.
        most_voxels: see `grid_difference`.

    Returns:
        The values, (z, y, x), or (y, x) of a picture.

    Raises:
        ValueError: the file is no such image, or lies elsewhere; the message has the numbers.
    """
    stored = read_grid(path)
    difference = grid_difference(stored, wanted, most_voxels)
    if difference:
        raise InputError(f"{path} lies elsewhere than the images it belongs to: {difference}")
    return reorient(read_values(path), stored, wanted)


def read_values(path: Path) -> Values:
    """Read the values of an image of one channel, (z, y, x) or (y, x), as they are stored.

    Raises:
        ValueError: the file cannot be read, or has several channels.
    """
    check_image(path)
    problem = gzip_problem(path) if path.suffix == ".gz" else ""
    if problem:
        raise UnreadableImageError(f"{path} is truncated or damaged: {problem}")
    try:
        image = sitk.ReadImage(str(path))
    except (RuntimeError, MemoryError) as error:
        raise _unreadable(path, error) from None
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise InputError(f"{path} holds colours; allowed: one value per voxel")
    return sitk.GetArrayFromImage(image)


def grid_difference(stored: Grid, wanted: Grid, most_voxels: float = ORIGIN_VOXELS) -> str:
    """Describe with numbers how two grids differ, other than in the way they are stored.

    Args:
        stored: a grid.
        wanted: the grid to compare it with.
        most_voxels: distance along an axis, in voxels, at which they count as different; infinity
            ignores it.

    Returns:
        The differences, or an empty text if both images have the same voxels.
    """
    turned = _reoriented(stored, wanted)
    cosines = np.clip((turned.directions * wanted.directions).sum(0), -1, 1)
    angle = float(np.degrees(np.arccos(cosines)).max())
    differences = []
    if angle > DIRECTION_TOLERANCE_DEG:
        differences.append(f"axes turned by {angle:.1f} degrees")
    if stored.oriented != wanted.oriented and not has_same_axes(stored, wanted):
        differences.append("one header gives no orientation (qform and sform codes are 0)")
    if turned.shape != wanted.shape:
        differences.append(f"{_times(turned.shape)} voxels against {_times(wanted.shape)}")
    if not np.allclose(turned.spacing, wanted.spacing, rtol=SPACING_TOLERANCE, atol=0):
        differences.append(
            f"voxels of {_times(turned.spacing)} mm against {_times(wanted.spacing)} mm"
        )
    offset = grid_offset(stored, wanted)
    if not differences and offset > most_voxels + ROUNDING_VOXELS:
        distance = float(np.linalg.norm(turned.centre - wanted.centre))
        differences.append(f"origins {distance:.4g} mm ({offset:.3g} voxels) apart")
    return ", ".join(differences)


def stacking_problem(stored: Grid, first: Grid) -> str:
    """Describe why an image cannot be stacked on another, voxel by voxel as both are stored.

    Returns:
        The differences, or an empty text if there are none.
    """
    difference = grid_difference(stored, first, SAME_GRID_VOXELS)
    if difference or has_same_axes(stored, first):
        return difference
    names = ["".join(nib.aff2axcodes(grid.affine)) for grid in (stored, first)]
    return f"axes stored as {names[0]} against {names[1]}"


def grid_offset(stored: Grid, wanted: Grid) -> float:
    """Measure how far the middles of two grids are apart, in voxels along the worst axis."""
    difference = _reoriented(stored, wanted).centre - wanted.centre
    return float(np.abs(wanted.directions.T @ difference / wanted.spacing).max())


def _read_header(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path, error) from None
    return reader


def _unreadable(path: Path, error: Exception) -> UnreadableImageError:
    """Return the error for a file that SimpleITK cannot read, with the end of its message."""
    reason = reason_of(error)
    return UnreadableImageError(f"{path} cannot be read as an image: {reason.splitlines()[-1]}")


def _change(stored: Grid, wanted: Grid) -> Float[np.ndarray, "3 2"]:
    """Return the order and flips that bring the stored axes closest to the wanted ones."""
    relative = np.eye(4)
    relative[:3, :3] = wanted.directions.T @ stored.directions
    return io_orientation(relative)


def _reoriented(stored: Grid, wanted: Grid) -> Grid:
    change = _change(stored, wanted)
    shape = [0, 0, 0]
    for length, axis in zip(stored.shape, change[:, 0].astype(int), strict=True):
        shape[axis] = length
    affine = stored.affine @ inv_ornt_aff(change, stored.shape)
    return Grid((shape[0], shape[1], shape[2]), affine)


def _times(numbers: tuple[float, ...]) -> str:
    return " x ".join(f"{number:.5g}" for number in numbers)
