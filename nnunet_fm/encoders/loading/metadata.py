"""The metadata inside a weight file: its weight card and its origin."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnunet_fm.internal.atomic_files import replaced_atomically
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.json_files import parse_json
from nnunet_fm.internal.safetensors_files import read_metadata, write_safetensors

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
    if path.suffix == ".safetensors":
        write_safetensors(path, state, KEY, json.dumps(about))
        return
    content = {"teacher": {f"backbone.{k}": v for k, v in state.items()}, KEY: json.dumps(about)}
    with replaced_atomically(path) as temporary:
        torch.save(content, temporary)


def embedded_card(path: Path, content: Any) -> dict[str, Any]:
    """Return the metadata that `write_encoder` wrote; empty if there are none.

    Args:
        path: of the weight file.
        content: as returned by `read_tensors`.
    """
    text = content.get(KEY) if isinstance(content, Mapping) else None
    if path.suffix == ".safetensors":
        text = read_metadata(path, KEY)
    try:
        return dict(parse_json(text, str(path))) if isinstance(text, str) else {}
    except InputError:
        return {}
