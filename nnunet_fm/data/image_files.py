"""Compressed images: truncated ones are noticed, which SimpleITK writes and reads silently."""

import gzip
import zlib
from pathlib import Path

import SimpleITK as sitk

PIECE = 1 << 20  # bytes read at once


def write_compressed(image: sitk.Image, path: Path) -> None:
    """Write an image compressed, and read a `.gz` file again: a full disk may have truncated it.

    Raises:
        OSError: the disk is full.
    """
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
        problem = gzip_problem(path) if path.suffix == ".gz" else ""
    except RuntimeError as error:
        problem = str(error)
    if problem:
        raise OSError(f"{path.name} was not written whole: {problem}")


def gzip_problem(path: Path) -> str:
    """Read a gzip file to its end and say what is wrong with it; an empty text if nothing is."""
    try:
        with gzip.open(path) as stream:
            while stream.read(PIECE):
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        return str(error)
    return ""
