"""Write safetensors files atomically, with one text as metadata, and read that text."""

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nnunet_fm.internal.atomic_files import replaced_atomically


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], key: str, text: str) -> None:
    """Write tensors, atomically.

    Args:
        path: of the file; its folder exists.
        tensors: by name; no two share memory.
        key: of the only metadata, as several would be written in random order.
        text: the metadata.
    """
    with replaced_atomically(path) as temporary:
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, {key: text})
        os.chmod(temporary, 0o666 & ~_umask())  # safetensors lets only the owner read


def read_metadata(path: Path, key: str) -> str | None:
    """Return the text that `write_safetensors` wrote; None if there is none."""
    try:
        with safe_open(path, "pt") as stream:
            return (stream.metadata() or {}).get(key)
    except SafetensorError:
        return None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
