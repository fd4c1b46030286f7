"""The checkpoints of nnU-Net's trainers, opened without running code that they carry.

nnU-Net writes plans, logs and its trainer's arguments beside the tensors, and opens them with
Python's unrestricted unpickler. Here only what its trainer writes is allowed.
"""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.torch_files import (
    check_archive,
    check_structure,
    load_tensors,
    refused_type,
)
from nnunet_fm.nnunet.published_model import SUFFIX, read_published, stored_checkpoint

NEEDED = ("network_weights", "init_args", "trainer_name")
NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
TRUST = "If you trust who made it, add --trust-checkpoint, which runs it"
RESUME = "Restore this run's own checkpoint, or train without --c"


class _NumberType:
    """Stands for `numpy.dtype` in a checkpoint: the types of single numbers, and no other."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if code not in NUMBERS:
            raise pickle.UnpicklingError(f"GLOBAL numpy.dtype of {code!r}")
        self.code = code
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _number(number_type: _NumberType, content: bytes) -> np.generic:
    """Stand for numpy's `scalar` in a checkpoint: one number from its bytes."""
    dtype = np.dtype(number_type.order + number_type.code)
    if len(content) != dtype.itemsize:
        raise pickle.UnpicklingError("damaged: a number of another size than its type")
    number: np.generic = np.frombuffer(content, dtype)[0]
    return number


# Beside tensors, the trainer logs numpy's numbers; numpy 1 and 2 name their module differently.
ALLOWED = (
    (_NumberType, "numpy.dtype"),
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
)


def read_checkpoint(path: Path, trust: bool = False, remedy: str = TRUST) -> dict[str, Any]:
    """Read a checkpoint of nnU-Net's trainer.

    Args:
        path: the file; a published model has a `.safetensors` in its place.
        trust: open it even if it needs more than nnU-Net's trainer writes, which runs its code.
        remedy: what to do about a file that needs more.

    Raises:
        InputError: damaged, no checkpoint of nnU-Net, or a file that needs more; the type is named.
    """
    stored = stored_checkpoint(path)
    content = read_published(stored) if stored.suffix == SUFFIX else _unpickle(path, trust, remedy)
    _check_content(content, path)
    return dict(content)


def _unpickle(path: Path, trust: bool, remedy: str) -> Any:
    try:
        return _trusted(path) if trust else load_tensors(path, ALLOWED)
    except InputError:
        raise
    except Exception as error:
        needed = refused_type(error)
        if needed:
            raise InputError(
                f"{path} is not opened: it needs {needed}, which nnU-Net's trainer does not write "
                f"and which could run code. {remedy}"
            ) from None
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} is damaged or not a checkpoint ({first_line[:200]}); restore it, or name "
            "another one with -chk"
        ) from None


def _trusted(path: Path) -> Any:
    check_archive(path)
    content = torch.load(path, map_location="cpu", weights_only=False)
    check_structure(content, path)
    return content


def _check_content(content: Any, path: Path) -> None:
    """Raise InputError where a part that every checkpoint has is missing or of another type."""
    if not isinstance(content, dict) or "init_args" not in content:
        raise InputError(f"{path} is not a checkpoint of nnU-Net; name another one with -chk")
    missing = [key for key in NEEDED if key not in content]
    if missing:
        raise InputError(
            f"{path} is no complete checkpoint of nnU-Net: it has no {', '.join(missing)}; name "
            "another one with -chk"
        )
    arguments = content["init_args"]
    if not isinstance(arguments, dict) or not isinstance(content["network_weights"], dict):
        raise InputError(f"{path}: init_args and network_weights have to be dictionaries")
    plans = arguments.get("plans")
    configurations = plans.get("configurations") if isinstance(plans, dict) else None
    if not isinstance(configurations, dict) or arguments.get("configuration") not in configurations:
        raise InputError(f"{path}: its plans have no configuration like the one it was trained in")


class _TorchWithOtherLoad:
    """torch, except that `load` reads nnU-Net's checkpoints."""

    def __init__(self, trust: bool, remedy: str) -> None:
        self._trust = trust
        self._remedy = remedy

    def load(self, path: str, **arguments: Any) -> dict[str, Any]:
        return read_checkpoint(Path(path), self._trust, self._remedy)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextmanager
def restricted_loading(
    module: ModuleType, trust: bool = False, remedy: str = TRUST
) -> Iterator[None]:
    """Let a module of nnU-Net read its checkpoints with `read_checkpoint` for the time of a block.

    Args:
        module: e.g. `nnunetv2.inference.predict_from_raw_data`, which calls `torch.load`.
        trust: see `read_checkpoint`.
        remedy: see `read_checkpoint`.
    """
    original = module.torch
    module.torch = _TorchWithOtherLoad(trust, remedy)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.torch = original  # type: ignore[attr-defined]
