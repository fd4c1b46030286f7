"""From a file to a flat state dict: no pickled code is run, containers and prefixes are taken off."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nnunet_fm.encoders.loading import key_formats as formats
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.messages import some

CONTAINERS = ("teacher", "model_ema", "teacher_model", "state_dict", "model", "network_weights")
PREFIXES = (
    "module.",
    "_orig_mod.",
    "teacher.",
    "model_ema.",
    "backbone.",
    "dino_encoder.",
    "encoder.",
    "model.",
    "swinViT.",
)
OWN_FORMAT = "the encoder's own"
INFIXES = ("_checkpoint_wrapped_module.", "_orig_mod.", "_fsdp_wrapped_module.")


class CheckpointError(InputError):
    """A weight file that cannot be used as it is; the message says why and what to do."""


def read_tensors(path: Path) -> Any:
    """The content of a `.safetensors`, `.pth`, `.pt` or `.bin` file; pickled code is never run.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: truncated, of another kind, or a pickle that holds more than tensors.
    """
    if not path.is_file():
        raise MissingFileError(
            f"encoder file {str(path)!r} does not exist; give the path of a .pth or .safetensors"
        )
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, ValueError, OSError) as error:
            raise CheckpointError(
                f"{path.name} is no readable safetensors file ({error}); download it again"
            ) from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if (
            "weights_only" in str(error)
            or "Unsupported" in str(error)
            or "unpickl" in str(error).lower()
        ):
            raise CheckpointError(
                f"{path.name} holds pickled objects beside tensors, which could run code, and is not opened. "
                "If you trust it, save its tensors alone: "
                "torch.save(torch.load(FILE, weights_only=False)['teacher'], 'tensors.pth'). "
                f"Details: {str(error).splitlines()[0][:200]}"
            ) from None
        first_line = str(error).splitlines()[0][:200] if str(error) else ""
        raise CheckpointError(
            f"{path.name} is truncated or no PyTorch file ({type(error).__name__}: {first_line}); "
            "download it again, or give a .pth, .pt or .safetensors"
        ) from None


def unwrap(
    content: Any, own: frozenset[str] = frozenset()
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Take the encoder's state dict out of its containers and prefixes: (tensors, containers, prefixes).

    Args:
        content: of the file.
        own: names of a user's own encoder, recognised beside the known formats.
    """
    containers: list[str] = []
    while isinstance(content, Mapping):
        name = next((c for c in CONTAINERS if isinstance(content.get(c), Mapping)), None)
        if name is None and any(isinstance(v, Tensor) for v in content.values()):
            break
        if name is None:
            raise CheckpointError(
                f"no tensors found; the file's keys are {some(list(map(str, content)))}. "
                f"Allowed: a state dict, or one under {', '.join(CONTAINERS)}"
            )
        containers.append(name)
        content = content[name]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"the file holds a {type(content).__name__}; allowed: a state dict")
    state = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    for infix in INFIXES:
        state = {k.replace(f".{infix}", "."): v for k, v in state.items()}
    prefixes: list[str] = []
    while format_of(state, own) is None:
        prefix = next(
            (p for p in PREFIXES if format_of(_inside(state, p), own) or _all_inside(state, p)),
            None,
        )
        if prefix is None:
            break
        prefixes.append(prefix)
        outside = {k: v for k, v in state.items() if not k.startswith(prefix)}
        state = _inside(state, prefix) | outside
    return state, containers, prefixes


def format_of(state: Mapping[str, Tensor], own: frozenset[str]) -> str | None:
    """Name of the key format, with a user's own names before the known ones; None if unknown."""
    return OWN_FORMAT if own and own & state.keys() else formats.detect(state)


def _inside(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _all_inside(state: Mapping[str, Tensor], prefix: str) -> bool:
    """Whether `prefix` leads a large part of the keys, so that it is worth looking below it."""
    return sum(k.startswith(prefix) for k in state) * 2 > len(state) > 0
