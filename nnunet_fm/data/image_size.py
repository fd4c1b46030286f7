"""Whether an image that its header describes fits into its file and into the memory."""

from collections.abc import Sequence
from math import prod
from pathlib import Path

import SimpleITK as sitk

from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.memory import check_memory

MOST_COMPRESSED = 1100  # zlib makes nothing smaller than a 1032nd
FLOAT32 = 4  # bytes of a voxel in memory, at least
BITS = "bitpix"  # key of a NIfTI header: bits of a voxel as it is stored, before it is scaled
BYTES = {
    sitk.sitkUInt8: 1,
    sitk.sitkInt8: 1,
    sitk.sitkUInt16: 2,
    sitk.sitkInt16: 2,
    sitk.sitkUInt32: 4,
    sitk.sitkInt32: 4,
    sitk.sitkFloat32: 4,
}


class UnreadableImageError(InputError):
    """An image file that is damaged, is of another kind, or is larger than the memory."""


def check_size(path: Path, shape: Sequence[int], bytes_per_voxel: int) -> None:
    """Check that a file holds about what its header says, and that this fits into the memory.

    Args:
        path: the file.
        shape: numbers of voxels along the axes, as the header states them.
        bytes_per_voxel: of all channels, as they are stored.

    Raises:
        UnreadableImageError: it does not.
    """
    voxels = prod(int(length) for length in shape)
    times = " x ".join(str(length) for length in shape)
    name = f"{path.name}: its header says {times} voxels, which"
    stored = path.stat().st_size
    most = stored * MOST_COMPRESSED if path.suffix == ".gz" else stored
    if path.suffix in (".nii", ".gz") and voxels * bytes_per_voxel > most:
        raise UnreadableImageError(
            f"{name} {stored} bytes cannot hold; the file is truncated or damaged"
        )
    try:
        check_memory(voxels * max(bytes_per_voxel, FLOAT32), name)
    except InputError as error:
        raise UnreadableImageError(str(error)) from None


def check_header(header: sitk.ImageFileReader) -> None:
    """Check the size of an image whose header SimpleITK has read.

    Raises:
        UnreadableImageError: see `check_size`.
    """
    if header.HasMetaDataKey(BITS):
        width = int(header.GetMetaData(BITS)) // 8
    else:
        width = BYTES.get(header.GetPixelID(), 8) * header.GetNumberOfComponents()
    check_size(Path(header.GetFileName()), header.GetSize(), width)
