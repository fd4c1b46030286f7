"""Names and shapes of the encoder of a card, in the sizes that a file shows."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nnunet_fm.encoders.registry import build_encoder, known_architecture
from nnunet_fm.encoders.weight_card import WeightCard
from nnunet_fm.internal.errors import InputError

CHANGES_VALUES = {"uniform_", "normal_", "erfinv_", "mul_", "add_", "clamp_", "fill_", "zero_"}


def options_of(card: WeightCard, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the options that the encoder of a file is built with.

    What a card states holds, except what its published copies differ in (`varies`); what it leaves
    open is taken from the tensors.

    Args:
        card: of the file.
        tensors: of the file, in our names.
    """
    show = known_architecture(card.architecture).shown
    shown = {} if show is None else show(tensors)
    stated = {k: v for k, v in card.options.items() if k not in card.varies or k not in shown}
    return {**shown, **stated}


def shapes_of(
    card: WeightCard, tensors: Mapping[str, Tensor] | None = None
) -> dict[str, torch.Size]:
    """Return names and shapes of a card's encoder, for a file if its tensors are given.

    Sizes that cannot be built, because the file is of another network, are disregarded.

    Raises:
        ModuleNotFoundError: the encoder needs a package that is not installed.
    """
    if tensors is not None:
        try:
            return _shapes(card.architecture, json.dumps(options_of(card, tensors)))
        except InputError:
            pass
    return _shapes(card.architecture, json.dumps(card.options))


class _WithoutValues(TorchFunctionMode):
    """Skip what initialisers do to tensors: on the meta device, it takes time and has no effect."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") in CHANGES_VALUES and args and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


@cache
def _shapes(architecture: str, options: str) -> dict[str, torch.Size]:
    """Return names and shapes of an architecture, built without memory; options are JSON."""
    with torch.device("meta"), _WithoutValues():
        encoder = build_encoder(architecture, **json.loads(options))
    return {name: tensor.shape for name, tensor in encoder.state_dict().items()}
