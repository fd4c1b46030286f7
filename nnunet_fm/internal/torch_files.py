"""Open PyTorch files: no pickled code is run, and size and nesting have limits."""

import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import safe_globals

from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.memory import check_memory

DEEPEST = 50  # containers inside one another
MOST_ITEMS = 2_000_000
LARGEST_EXPANDED = 1 << 28  # bytes of a tensor that is stored as fewer values
STOP = object()
REFUSED = re.compile(r"GLOBAL (\S+)")

Allowed = Sequence[Callable[..., Any] | tuple[Callable[..., Any], str]]


def load_tensors(path: Path, allowed: Allowed = ()) -> Any:
    """Read a file of `torch.save`: tensors, numbers, texts and containers of these.

    Args:
        path: the file.
        allowed: further types, or pairs of what is called and the name it stands for.

    Raises:
        TooLargeError: it would not fit into the memory.
        InputError: it contains itself, or is nested deeper than any real file.
        Exception: whatever torch raises for other files; `refused_type` says whether it needs code.
    """
    check_archive(path)
    with safe_globals(list(allowed)):
        content = torch.load(path, map_location="cpu", weights_only=True)
    check_structure(content, path)
    return content


def check_archive(path: Path) -> None:
    """Check that what is inside a compressed file fits into the memory.

    Raises:
        TooLargeError: it does not.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError):
        return  # torch says what is wrong
    check_memory(size, str(path))


def check_structure(content: Any, path: Path) -> None:
    """Walk through what a file holds.

    Raises:
        InputError: a container inside itself or nested too deeply, too many items, or a tensor that
            claims more values than it stores.
    """
    count = 0
    open_containers = [iter((content,))]
    while open_containers:
        item = next(open_containers[-1], STOP)
        if item is STOP:
            open_containers.pop()
            continue
        count += 1
        if count > MOST_ITEMS:
            raise InputError(f"{path} holds more than {MOST_ITEMS:,} items; allowed: fewer")
        if isinstance(item, Tensor):
            _check_tensor(item, path)
        if isinstance(item, Mapping):
            open_containers.append(iter(item.values()))
        elif isinstance(item, list | tuple | set):
            open_containers.append(iter(item))
        if len(open_containers) > DEEPEST:
            raise InputError(
                f"{path} contains itself, or more than {DEEPEST} containers inside one another; "
                "no training writes such a file"
            )


def _check_tensor(tensor: Tensor, path: Path) -> None:
    """Refuse a tensor without values, and a large one that is stored as a few numbers."""
    if tensor.is_meta:
        raise InputError(f"{path} holds a tensor without values (meta); allowed: numbers")
    size = tensor.numel() * tensor.element_size()
    if size <= LARGEST_EXPANDED:
        return
    if tensor.layout != torch.strided or size > tensor.untyped_storage().nbytes():
        raise InputError(
            f"{path} holds a tensor of shape {tuple(tensor.shape)} of which only a few values are "
            "stored; save its tensors with .contiguous()"
        )


def refused_type(error: Exception) -> str:
    """Return the name of the type for which torch refused a file; empty for other errors."""
    found = REFUSED.search(str(error))
    return found[1] if found else ""
