"""How the tensors of a published file become those of an encoder."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

State = dict[str, Tensor]

# Keys of the projection heads of contrastive pretraining.
PROJECTORS = (r"(projector|projection|projection_head|proj_head)\..*",)


@dataclass
class Converted:
    """A state dict in an encoder's own names.

    Attributes:
        tensors: by name.
        dropped: for each tensor of the file that is not used, the reason. Nothing is dropped
            silently.
    """

    tensors: State
    dropped: dict[str, str] = field(default_factory=dict)


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
