"""Files of a store: one blosc2 array per volume, with the record of the volume inside."""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import torch
from jaxtyping import Float, Shaped

from nnunet_fm.internal.atomic_files import replaced_atomically
from nnunet_fm.internal.errors import StorageError
from nnunet_fm_pretrain.data.records import AnyRecord, Record, from_json, to_json

VOLUMES, ENDING = "volumes", ".b2nd"
LEVELS = 255  # grey levels of a uint8 store; code 0 is the background
_RECORD, _EMPTY_CHUNKS = "record", "empty_chunks"

Values = Float[np.ndarray, "z y x"]


def volume_path(store: Path, volume: str) -> Path:
    """Return the file of a volume."""
    return store / VOLUMES / f"{volume}{ENDING}"


def write_volume(
    store: Path,
    values: Values,
    record_type: type[AnyRecord],
    chunk: tuple[int, int, int],
    uint8: bool,
    **fields: Any,
) -> AnyRecord:
    """Write one volume, atomically. Its record is kept in the file as well.

    Args:
        store: folder of the store.
        values: floats (z, y, x), background exactly 0.
        record_type: kind of record.
        chunk: values that are compressed and read together (z, y, x).
        uint8: store 255 grey levels instead of float16.
        **fields: of the record, except those of the encoding.

    Returns:
        The record.

    Raises:
        OSError: the disk is full.
    """
    codes, scale, low = values.astype(np.float16), 1.0, 0.0
    if uint8:
        codes, scale, low = _quantise(values)
    sha256 = hashlib.sha256(codes.tobytes()).hexdigest()
    record = record_type(dtype=str(codes.dtype), scale=scale, low=low, sha256=sha256, **fields)
    path = volume_path(store, record.volume)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_array(path, codes, chunk, json.dumps(to_json(record)))
    return record


def _write_array(
    path: Path, codes: Shaped[np.ndarray, "z y x"], chunk: tuple[int, int, int], record: str
) -> None:
    shuffle = blosc2.Filter.SHUFFLE
    if codes.dtype == np.uint8:
        shuffle = blosc2.Filter.BITSHUFFLE
    packing = {"codec": blosc2.Codec.ZSTD, "clevel": 5, "filters": [shuffle], "nthreads": 1}
    blocks = tuple(min(c, n) for c, n in zip(chunk, codes.shape, strict=True))
    layout = {"chunks": blocks, "blocks": blocks, "cparams": packing}
    with replaced_atomically(path) as temporary:
        try:
            array = blosc2.asarray(codes, **layout, urlpath=str(temporary), mode="w")
            array.schunk.vlmeta[_EMPTY_CHUNKS] = _count_empty_chunks(array.schunk)
            array.schunk.vlmeta[_RECORD] = record
        except RuntimeError as error:  # blosc2's kind where a disk is full
            raise OSError(f"blosc2: {error}") from error


def read_values(
    store: Path, record: Record, part: int | tuple[slice, ...] | slice
) -> Float[np.ndarray, "..."]:
    """Read a part of a volume as float32; the background is 0.

    The first read of a volume checks that its file is the manifest's and lacks no chunk.

    Raises:
        OSError: the file is damaged.
    """
    path = volume_path(store, record.volume)
    try:
        state = path.stat()
        _check_file(path, state.st_mtime_ns, record.sha256)
        codes = blosc2.open(str(path), mode="r", dparams={"nthreads": 1})[part]
    except Exception as error:  # blosc2 raises several kinds for a damaged file
        raise StorageError(
            f"{path} cannot be read ({error}); type: nnunet-fm pretrain doctor --store {store}"
        ) from error
    return _decode(codes, record)


@functools.cache  # once for each volume and process
def _check_file(path: Path, changed: int, sha256: str) -> None:
    """Check that a volume's file holds what the manifest says, without reading its values.

    blosc2 reads a chunk that was never written as zeros, like one of background. So the number of
    empty chunks is kept in the file; where it is not (version 0.1), the values are hashed.

    Args:
        path: the file.
        changed: time of its last change; another one means another file.
        sha256: hash of the values in the manifest.
    """
    array = blosc2.open(str(path), mode="r", dparams={"nthreads": 1})
    chunks = array.schunk  # valid as long as `array` is
    kept = chunks.vlmeta
    if _RECORD not in kept:
        raise StorageError("it was not written to its end")
    if json.loads(kept[_RECORD])["sha256"] != sha256:
        raise StorageError("its checksum is not the manifest's")
    empty = _count_empty_chunks(chunks)
    if _EMPTY_CHUNKS in kept:
        lost = empty != kept[_EMPTY_CHUNKS]
    else:
        lost = empty > 0 and values_sha256(path) != sha256
    if lost:
        raise StorageError("chunks of it are missing")


def _count_empty_chunks(chunks: Any) -> int:
    """Count the chunks of which blosc2 stores no values: zeros, or never written."""
    ordinary = blosc2.SpecialValue.NOT_SPECIAL
    return sum(chunk.special != ordinary for chunk in chunks.iterchunks_info())


def read_record(path: Path, record_type: type[AnyRecord]) -> AnyRecord | None:
    """Return the record inside a volume's file; None if there is none, or the file is damaged."""
    try:
        array = blosc2.open(str(path), mode="r")
        return from_json(record_type, json.loads(array.schunk.vlmeta[_RECORD]))
    except Exception:  # blosc2 raises several kinds; whatever it is, the volume is made again
        return None


def intact_record(store: Path, volume: str, record_type: type[AnyRecord]) -> AnyRecord | None:
    """Return the record of a volume that still has the values that were written; else None."""
    path = volume_path(store, volume)
    record = read_record(path, record_type)
    return record if record and values_sha256(path) == record.sha256 else None


def values_sha256(path: Path) -> str | None:
    """Hash the stored values of a volume; None if the file is damaged."""
    try:
        return hashlib.sha256(blosc2.open(str(path), mode="r")[:].tobytes()).hexdigest()
    except Exception:  # blosc2 raises several kinds for a damaged file
        return None


def _quantise(values: Values) -> tuple[np.ndarray, float, float]:
    """Return codes 1 to 255 between the extremes, and 0 for background; scale and low value."""
    inside = values != 0
    if not inside.any():
        return np.zeros(values.shape, np.uint8), 1.0, 0.0
    low, high = float(values[inside].min()), float(values[inside].max())
    scale = (high - low) / (LEVELS - 1) or 1.0
    codes = np.where(inside, np.rint((values - low) / scale) + 1, 0)
    return codes.astype(np.uint8), scale, low


def _decode(codes: Shaped[np.ndarray, "..."], record: Record) -> Float[np.ndarray, "..."]:
    if record.dtype != "uint8":
        # torch converts a whole array at a time, numpy value by value
        values: np.ndarray = torch.from_numpy(codes).float().numpy()
        return values
    levels = np.concatenate([[0], np.arange(LEVELS) * record.scale + record.low])
    return levels.astype(np.float32)[codes]
