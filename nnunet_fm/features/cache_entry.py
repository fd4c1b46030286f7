"""One entry of the feature cache: a safetensors file with its key and checksums."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from nnunet_fm.internal.atomic_files import replaced_atomically
from nnunet_fm.internal.messages import some

CHECKSUMS = "sha256"  # the only metadata key: safetensors writes several in random order
KEY = "key"  # beside the checksums; metadata of its own in entries of version 0.1
Arrays = Mapping[str, Shaped[np.ndarray, "..."]]


class DamagedEntryError(Exception):
    """An entry that cannot be read, or differs from its key or checksums."""


def read_entry(path: Path, key: str, names: Sequence[str] | None) -> dict[str, np.ndarray]:
    """Read arrays of an entry, all of them if `names` is None.

    Raises:
        DamagedEntryError: the entry cannot be read, or differs from its key or checksums.
        KeyError: the entry has no array of such a name.
    """
    try:
        with safe_open(path, "np") as stream:
            metadata, available = stream.metadata() or {}, list(stream.keys())
            selected = [name for name in names or available if name in available]
            arrays = {name: stream.get_tensor(name) for name in selected}
            checksums = dict(json.loads(metadata[CHECKSUMS]))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise DamagedEntryError(f"cannot be read: {error}") from None
    held = metadata.get(KEY, checksums.get(KEY))
    if held != key:
        raise DamagedEntryError(f"holds the key {held}")
    absent = sorted(set(names or ()) - set(available))
    if absent:
        raise KeyError(
            f"no {some(absent)} in the cache's entry; it keeps: {', '.join(sorted(available))}"
        )
    for name, array in arrays.items():
        if _sha256(array) != checksums.get(name):
            raise DamagedEntryError(f"{name} no longer has its checksum")
    return arrays


def write_entry(path: Path, key: str, arrays: Arrays) -> None:
    """Write arrays with their checksums, atomically.

    Raises:
        OSError: the disk is full or not writable.
    """
    content = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    checksums = {name: _sha256(array) for name, array in content.items()}
    metadata = {CHECKSUMS: json.dumps({KEY: key, **checksums})}
    write_bytes(path, save(content, metadata=metadata))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file of the cache atomically; other processes may write the same file."""
    with replaced_atomically(path) as temporary:
        temporary.write_bytes(content)


def _sha256(array: np.ndarray) -> str:
    digest = hashlib.sha256(f"{array.dtype}:{array.shape}:".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
