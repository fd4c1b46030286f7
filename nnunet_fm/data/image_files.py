"""Writing compressed images so that a full disk is noticed."""

import gzip
import zlib
from pathlib import Path

import SimpleITK as sitk

from nnunet_fm.internal.errors import StorageError

PIECE = 1 << 20  # bytes read at once


def write_compressed(image: sitk.Image, path: Path) -> None:
    """Write a `.nii.gz` file, and read it again: SimpleITK cuts it on a full disk in silence.

    Raises:
        OSError: the disk is full.
    """
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
        with gzip.open(path) as stream:
            while stream.read(PIECE):
                pass
    except (RuntimeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise StorageError(f"{path.name} was not written whole: {error}") from error
