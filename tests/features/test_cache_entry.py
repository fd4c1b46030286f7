"""Entries of the feature cache as files."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from nnunet_fm.features.cache_entry import DamagedEntryError, read_entry, write_entry

ARRAYS = {"cls/3": np.ones((2, 3), np.float16), "pooled": np.ones((1, 3), np.float32)}


def test_the_same_arrays_are_the_same_bytes(tmp_path: Path) -> None:
    """Two metadata are written in an order that changes from call to call."""
    for number in range(20):
        write_entry(tmp_path / f"{number}.safetensors", "a", ARRAYS)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_an_entry_of_version_0_1_is_read(tmp_path: Path) -> None:
    new, old = tmp_path / "new.safetensors", tmp_path / "old.safetensors"
    write_entry(new, "a", ARRAYS)
    metadata = {"key": "a", "sha256": json.dumps({"pooled": _checksum(new)})}
    save_file({"pooled": ARRAYS["pooled"]}, old, metadata=metadata)
    assert np.array_equal(read_entry(old, "a", None)["pooled"], ARRAYS["pooled"])
    for path in (new, old):
        with pytest.raises(DamagedEntryError, match="holds the key a"):
            read_entry(path, "b", None)


def test_checksums_that_are_no_mapping_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for text in ("[1]", "3", "null"):
        save_file(ARRAYS, path, metadata={"sha256": text})
        with pytest.raises(DamagedEntryError, match="cannot be read"):
            read_entry(path, "a", None)


def _checksum(path: Path) -> str:
    """Return the checksum of `pooled` as an entry holds it."""
    return path.read_text(errors="replace").split('pooled\\": \\"')[1][:64]
