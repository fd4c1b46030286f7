"""How the tensors of a published file become those of an encoder."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nnunet_fm.internal.errors import InputError

State = dict[str, Tensor]
Renames = Sequence[tuple[str, str]]

# Keys of the projection heads of contrastive pretraining.
PROJECTORS = (r"(projector|projection|projection_head|proj_head)\..*",)


@dataclass
class Converted:
    """A state dict in an encoder's own names.

    Attributes:
        tensors: by name.
        dropped: for each tensor of the file that is not used, the reason. Nothing is dropped
            silently.
        options: of the encoder, where the names alone say how it was trained (axes, for instance).
    """

    tensors: State
    dropped: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class KeyFormat:
    """One way of naming an encoder's tensors.

    Attributes:
        name: for messages.
        matches: whether a flat state dict is in this format.
        convert: turns such a state dict into the encoder's own names; raises InputError for a file
            that is recognised and cannot be used.
        prefixes: that files of this family put before their keys, besides the usual ones.
        generic: whether other formats are tried first, because `matches` is true for some of them.
    """

    name: str
    matches: Callable[[Mapping[str, Tensor]], bool]
    convert: Callable[[Mapping[str, Tensor]], Converted]
    prefixes: tuple[str, ...] = ()
    generic: bool = False


def takes_slices(state: Mapping[str, Tensor]) -> bool:
    """Whether the patches of a transformer, in timm's names, are not those of volumes."""
    kernel = state.get("patch_embed.proj.weight")
    return kernel is None or kernel.ndim == 4


def place_under(
    state: Mapping[str, Tensor], prefix: str, excluded: re.Pattern[str], reason: str
) -> Converted:
    """Put tensors under a prefix, except those that belong to other parts of the network.

    Args:
        state: names and tensors; names that have the prefix already keep it.
        prefix: of the encoder's own names, e.g. `body.`.
        excluded: full match of the names that are not the encoder's.
        reason: why those are dropped.
    """
    result = Converted({})
    for key, value in state.items():
        if excluded.fullmatch(key):
            result.dropped[key] = reason
        else:
            result.tensors[key if key.startswith(prefix) else f"{prefix}{key}"] = value
    return result


def new_name(key: str, renames: Renames) -> str:
    """Return a name that went through regular expressions, one after the other.

    Args:
        key: the name.
        renames: pairs of a pattern and its replacement.
    """
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key


def renamed(state: Mapping[str, Tensor], renames: Renames) -> State:
    """Return a state dict with other names, see `new_name`."""
    return {new_name(key, renames): value for key, value in state.items()}


def fuse(state: State, parts: Sequence[str], fused: str) -> None:
    """Put linear layers of each block that have one input into one layer.

    A bias that is missing beside others is zero: DINOv3's keys have none.

    Args:
        state: is changed.
        parts: names of the layers below the block, e.g. `attention.q_proj`.
        fused: name of the layer that holds all of them.

    Raises:
        InputError: a block lacks one of the layers.
    """
    first = f".{parts[0]}.weight"
    for stem in [key.removesuffix(first) for key in state if key.endswith(first)]:
        weights = [state.pop(f"{stem}.{part}.weight", None) for part in parts]
        found = [weight for weight in weights if weight is not None]
        if len(found) < len(parts):
            raise InputError(f"{stem}: one of {', '.join(parts)} is missing")
        state[f"{stem}.{fused}.weight"] = torch.cat(found)
        biases = [state.pop(f"{stem}.{part}.bias", None) for part in parts]
        if any(bias is not None for bias in biases):
            zero = torch.zeros(found[0].shape[0])
            state[f"{stem}.{fused}.bias"] = torch.cat(
                [zero if bias is None else bias for bias in biases]
            )
