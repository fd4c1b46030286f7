"""Volumes whose file lost chunks, or is another than the manifest's, are not read as zeros."""

from pathlib import Path

import blosc2
import numpy as np
import pytest

from nnunet_fm_pretrain.data.array_files import read_values, volume_path, write_volume
from nnunet_fm_pretrain.data.records import SliceRecord

SHAPE = (8, 16, 16)
VALUES = np.random.default_rng(0).normal(size=SHAPE).astype(np.float16).astype(np.float32)
VALUES[:2] = 0  # two slices of background, whose chunks blosc2 stores without values


def write(store: Path, values: np.ndarray = VALUES) -> SliceRecord:
    names = dict.fromkeys(("dataset", "subject", "session", "sequence", "licence"), "x")
    keys = dict.fromkeys(("source_sha256", "preprocessing", "registered"), "x")
    fields = {"slices": tuple(range(SHAPE[0])), "size": SHAPE[1], **names, **keys}
    chunk = (1, *SHAPE[1:])
    return write_volume(store, values, SliceRecord, chunk, False, volume="d/s", **fields)


def rewrite(store: Path, written: int, keep: tuple[str, ...]) -> None:
    """Write the file again with some of its slices and of its metadata."""
    path = volume_path(store, "d/s")
    former = blosc2.open(str(path), mode="r")
    kept = {name: former.schunk.vlmeta[name] for name in keep}
    path.unlink()
    chunk = (1, *SHAPE[1:])
    array = blosc2.empty(
        SHAPE, dtype=np.float16, chunks=chunk, blocks=chunk, urlpath=str(path), mode="w"
    )
    for place in range(written):
        array[place] = VALUES[place].astype(np.float16)
    for name, value in kept.items():
        array.schunk.vlmeta[name] = value


@pytest.mark.parametrize("keep", [("record", "empty_chunks"), ("record",)], ids=["new", "0.1"])
@pytest.mark.parametrize("written", [0, 5])
def test_lost_chunks_are_noticed(tmp_path: Path, written: int, keep: tuple[str, ...]) -> None:
    record = write(tmp_path)
    assert np.array_equal(read_values(tmp_path, record, slice(None)), VALUES)
    rewrite(tmp_path, written, keep)
    with pytest.raises(OSError, match=r"d/s\.b2nd cannot be read \(chunks of it are missing\)"):
        read_values(tmp_path, record, 3)


def test_background_of_version_0_1_is_read(tmp_path: Path) -> None:
    record = write(tmp_path)
    rewrite(tmp_path, SHAPE[0], ("record",))
    assert np.array_equal(read_values(tmp_path, record, slice(None)), VALUES)


def test_an_unfinished_file_is_noticed(tmp_path: Path) -> None:
    record = write(tmp_path)
    rewrite(tmp_path, SHAPE[0], ())
    with pytest.raises(OSError, match="it was not written to its end"):
        read_values(tmp_path, record, 3)


def test_a_file_that_is_not_the_manifests_is_noticed(tmp_path: Path) -> None:
    record = write(tmp_path)
    write(tmp_path, VALUES + 1)
    with pytest.raises(OSError, match=r"its checksum is not the manifest's"):
        read_values(tmp_path, record, 3)
