"""Read a weight file into a flat state dict without containers and prefixes.

Pickled code is never run.
"""

import pickletools
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nnunet_fm.encoders.key_format import KeyFormat
from nnunet_fm.encoders.loading.key_formats import detect_format, family_prefixes
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.memory import TooLargeError, check_memory
from nnunet_fm.internal.messages import some
from nnunet_fm.internal.option_types import WEIGHT_SUFFIXES
from nnunet_fm.internal.torch_files import load_tensors

CONTAINERS = ("teacher", "model_ema", "teacher_model", "state_dict", "model", "network_weights")
PREFIXES = (
    "module.",
    "_orig_mod.",
    "teacher.",
    "model_ema.",
    "backbone.",
    "encoder.",
    "model.",
)
WRAPPERS = ("_checkpoint_wrapped_module.", "_orig_mod.", "_fsdp_wrapped_module.")
TEACHER = "eval/training_N/teacher_checkpoint.pth"  # of DINOv2's and DINOv3's training code


class CheckpointError(InputError):
    """A weight file that cannot be used as it is."""


def read_tensors(path: Path) -> Any:
    """Return the content of a `.safetensors`, `.pth`, `.pt` or `.bin` file.

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: a folder, or a file that is truncated, of another kind, or a pickle that
            holds more than tensors.
    """
    if path.is_dir():
        raise CheckpointError(_about_folder(path))
    if not path.is_file():
        raise MissingFileError(
            f"encoder file {str(path)!r} does not exist; give the path of a .pth or .safetensors"
        )
    if path.suffix == ".safetensors":
        try:
            check_memory(path.stat().st_size, str(path))
            return load_file(path)
        except TooLargeError as error:
            raise CheckpointError(str(error)) from None
        except (SafetensorError, ValueError, OSError) as error:
            raise CheckpointError(
                f"{path.name} is not a readable safetensors file ({error}); download it again"
            ) from None
    try:
        return load_tensors(path)
    except InputError as error:
        raise CheckpointError(str(error)) from None
    except Exception as error:
        raise _unreadable(path, error) from None


def _about_folder(path: Path) -> str:
    """Name the weight files in a folder that was given for a file."""
    found = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    files = [name for name in found if Path(name).suffix in WEIGHT_SUFFIXES]
    inside = f"a file in it: {some(files)}" if files else "a weight file; there is none in it"
    kind = "a folder"
    if any(name.endswith(".distcp") for name in found):
        kind = "a distributed checkpoint (a folder of .distcp files, which belongs to a training)"
        inside = f"the teacher that the training code writes beside it ({TEACHER}); {inside}"
    return f"{path} is {kind}; give {inside}"


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    """Say why torch did not read a file: pickled objects, or not a PyTorch file."""
    text = str(error)
    first_line = text.splitlines()[0][:200] if text else ""
    if re.search(r"\.rank_?\d+\.", path.name) or "sharded_tensor" in text:
        return CheckpointError(
            f"{path.name} is the part of a training state that one process wrote (student, "
            "teacher and optimiser, cut into shards), not an encoder. Give the teacher that the "
            f"training code writes: {TEACHER}"
        )
    if "weights_only" in text or "Unsupported" in text or "unpickl" in text.lower():
        key = _container_in_pickle(path)
        return CheckpointError(
            f"{path.name} holds pickled objects besides tensors, which could run code, and is not "
            "opened. If you trust it, save its tensors alone and give that file: "
            f"torch.save(torch.load({path.name!r}, weights_only=False){key}, 'tensors.pth'). "
            f"Details: {first_line}"
        )
    return CheckpointError(
        f"{path.name} is truncated or not a PyTorch file ({type(error).__name__}: {first_line}); "
        "download it again, or give a .pth, .pt or .safetensors"
    )


def _container_in_pickle(path: Path) -> str:
    """Return the index that selects the tensors, e.g. `['state_dict']`; empty if none is found.

    The pickle is read as a list of instructions, of which none is run.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
            words = {word for _, word, _ in pickletools.genops(archive.read(name))}
    except (zipfile.BadZipFile, StopIteration, ValueError):
        return ""
    return next((f"[{name!r}]" for name in CONTAINERS if name in words), "")


@dataclass(frozen=True)
class Unwrapped:
    """A flat state dict taken from a file.

    Attributes:
        tensors: by name, without containers and prefixes.
        containers: names of the dictionaries around it, outermost first.
        prefixes: removed from the names, in this order.
        format: of the names; None if unknown.
        dropped: for each tensor that was left out, the reason.
    """

    tensors: dict[str, Tensor]
    containers: list[str]
    prefixes: list[str]
    format: KeyFormat | None
    dropped: dict[str, str] = field(default_factory=dict)


def unwrap(content: Any, own: KeyFormat | None = None) -> Unwrapped:
    """Take the encoder's state dict out of its containers and prefixes.

    Args:
        content: of the file.
        own: a format that is recognised besides the registered ones, and before them.

    Raises:
        CheckpointError: the content holds no state dict.
    """
    content, containers = _without_containers(content)
    state = {str(key): v for key, v in content.items() if isinstance(v, Tensor)}
    for wrapper in WRAPPERS:
        state = {key.replace(f".{wrapper}", "."): v for key, v in state.items()}
    dropped: dict[str, str] = {}
    if any(key.startswith("teacher.") for key in state):
        students = [key for key in state if key.startswith("student.")]
        dropped = dict.fromkeys(students, "student of the training; the teacher is used")
        state = {key: v for key, v in state.items() if key not in dropped}
    prefixes: list[str] = []
    while format_of(state, own) is None:
        prefix = _next_prefix(state, own)
        if prefix is None:
            break
        prefixes.append(prefix)
        outside = {key: v for key, v in state.items() if not key.startswith(prefix)}
        state = _inside(state, prefix) | outside
    return Unwrapped(state, containers, prefixes, format_of(state, own), dropped)


def _without_containers(content: Any) -> tuple[Mapping[Any, Any], list[str]]:
    containers: list[str] = []
    while isinstance(content, Mapping):
        names = [c for c in CONTAINERS if isinstance(content.get(c), Mapping)]
        if not names and any(isinstance(v, Tensor) for v in content.values()):
            return content, containers
        if not names:
            raise CheckpointError(
                f"no tensors found; the file's keys are {some(list(map(str, content)))}. "
                f"Allowed: a state dict, or one under {', '.join(CONTAINERS)}"
            )
        containers.append(names[0])
        content = content[names[0]]
    raise CheckpointError(f"the file holds a {type(content).__name__}; allowed: a state dict")


def _next_prefix(state: Mapping[str, Tensor], own: KeyFormat | None) -> str | None:
    """Return a prefix behind which a known format begins, or that most keys have; None if none."""
    for prefix in (*family_prefixes(), *PREFIXES):
        if format_of(_inside(state, prefix), own) or _most_have(state, prefix):
            return prefix
    return None


def format_of(state: Mapping[str, Tensor], own: KeyFormat | None) -> KeyFormat | None:
    """Return the key format, `own` before the registered ones; None if unknown."""
    if own is not None and own.matches(state):
        return own
    return detect_format(state)


def _inside(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _most_have(state: Mapping[str, Tensor], prefix: str) -> bool:
    return sum(key.startswith(prefix) for key in state) * 2 > len(state) > 0
