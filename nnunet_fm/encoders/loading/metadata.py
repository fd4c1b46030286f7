"""The metadata inside a weight file: its weight card and its origin."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nnunet_fm.internal.atomic_files import replaced_atomically
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.json_files import parse_json

KEY = "nnunet_fm_card"
SUFFIXES = (".safetensors", ".pth")


def check_suffix(path: Path) -> None:
    """Check that an encoder can be written under this name.

    Raises:
        InputError: another suffix than `.pth` and `.safetensors`.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: allowed are {' and '.join(SUFFIXES)}")


def write_encoder(path: Path, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write an encoder with its metadata, atomically.

    Args:
        path: `.safetensors`, or `.pth` in the form of the DINOv3 training code, `{"teacher":
            {"backbone.*": ...}}`.
        state: tensors in the official DINOv3 names.
        about: metadata, JSON-serialisable; `card` names the weight card.

    Raises:
        InputError: another suffix.
    """
    check_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_atomically(path) as temporary:
        if path.suffix == ".pth":
            torch.save(
                {"teacher": {f"backbone.{k}": v for k, v in state.items()}, KEY: json.dumps(about)},
                temporary,
            )
        else:
            save_file(
                {k: v.contiguous() for k, v in state.items()},
                temporary,
                metadata={KEY: json.dumps(about)},
            )
            # safetensors writes files that only their owner can read
            os.chmod(temporary, 0o666 & ~_umask())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def embedded_card(path: Path, content: Any) -> dict[str, Any]:
    """Return the metadata that `write_encoder` wrote; empty if there are none.

    Args:
        path: of the weight file.
        content: as returned by `read_tensors`.
    """
    text = content.get(KEY) if isinstance(content, Mapping) else None
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as stream:
                text = (stream.metadata() or {}).get(KEY)
        except SafetensorError:
            return {}
    try:
        return dict(parse_json(text, str(path))) if isinstance(text, str) else {}
    except InputError:
        return {}
