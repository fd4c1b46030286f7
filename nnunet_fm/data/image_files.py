"""Writing compressed images so that a full disk is noticed."""

import gzip
import zlib
from pathlib import Path

import SimpleITK as sitk

PIECE = 1 << 20  # bytes read at once


def write_compressed(image: sitk.Image, path: Path) -> None:
    """Write a `.nii.gz` file, and read it again: SimpleITK silently truncates it on a full disk.

    Raises:
        OSError: the disk is full.
    """
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
        with gzip.open(path) as stream:
            while stream.read(PIECE):
                pass
    except (RuntimeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise OSError(f"{path.name} was not written whole: {error}") from error
