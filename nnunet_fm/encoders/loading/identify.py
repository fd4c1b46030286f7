"""Which weight card a file belongs to, told from its shapes, its name and how it was written."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from nnunet_fm.encoders.cards import CARDS
from nnunet_fm.encoders.loading.key_formats import Converted
from nnunet_fm.encoders.loading.read import CheckpointError
from nnunet_fm.encoders.registry import build_encoder
from nnunet_fm.encoders.weight_card import WeightCard
from nnunet_fm.internal.messages import some

MOST_DIFFERENT = 0.2  # share of tensors that may differ for a file still to be taken for a damaged one of its kind


def identify(path: Path, converted: Converted, containers: list[str]) -> tuple[WeightCard, str]:
    """Choose the card of a file by its shapes, then by the words of its name, then by its container.

    Raises:
        CheckpointError: no architecture comes near (the closest one is named), or cards of other
            numerics fit as well.
    """
    nearest, different = closest(converted.tensors)
    if len(different) > MOST_DIFFERENT * len(_shapes_of(nearest)):
        raise CheckpointError(
            f"{path.name}: no known architecture has these {len(converted.tensors)} tensors; the closest, "
            f"{nearest.name}, differs in {len(different)}: {some(different)}. Say which it is "
            "(a name from `nnunet-fm encoders list`, or timm/NAME): --encoder NAME to verify, --card NAME to plan"
        )
    fitting = [c for c in _of_one_build(nearest) if not c.shipped]
    open_to_others = [c for c in fitting if not c.by_files_alone]
    words = set(re.split(r"[^a-z0-9]+", path.stem.lower()))
    for reason, chosen in (
        ("shapes and the published file's name", [c for c in fitting if _is_published(path, c)]),
        (
            "shapes and the weights' name in the file name",
            [c for c in open_to_others if _is_named(c, words)],
        ),
        (
            "shapes and the family's name in the file name",
            [c for c in open_to_others if c.name.split("_")[0] in words - {"dinov3"}],
        ),
        (
            "shapes, and the container that the DINOv3 training code writes",
            [c for c in open_to_others if c.name.endswith(".trained") and containers],
        ),
        ("shapes", fitting if open_to_others else []),
    ):
        if len(chosen) == 1 or (chosen and all(c.options == chosen[0].options for c in chosen)):
            return chosen[0], reason
    names = " or ".join(c.name for c in fitting)
    raise CheckpointError(
        f"{path.name} holds the tensors of {nearest.architecture}, which {names} and files of others share, with "
        f"different numerics ({_unlike(fitting)}). Say which it is: --encoder NAME to verify, --card NAME to plan"
    )


def closest(tensors: Mapping[str, Tensor]) -> tuple[WeightCard, list[str]]:
    """The card whose encoder is nearest in names and shapes, and the tensors that differ (biases set aside)."""
    given = {k: v.shape for k, v in tensors.items() if not k.endswith(("q_bias", "v_bias"))}

    def different(card: WeightCard) -> list[str]:
        expected = _shapes_of(card)
        unlike = [k for k, shape in expected.items() if k != "mask_token" and given.get(k) != shape]
        return [*unlike, *(k for k in given if k not in expected)]

    nearest = min(_of_their_dimension(tensors), key=lambda card: len(different(card)))
    return nearest, different(nearest)


def nearest_by_shapes(tensors: Mapping[str, Tensor]) -> str:
    """The encoder that shares most shapes with a file of no known names, in words."""
    given = Counter(v.shape for v in tensors.values())

    def shared(card: WeightCard) -> int:
        return (given & Counter(_shapes_of(card).values())).total()

    nearest = max(
        _of_their_dimension(tensors),
        key=lambda card: shared(card) / max(len(tensors), len(_shapes_of(card))),
    )
    return f"{nearest.name}, with {shared(nearest)} of its {len(_shapes_of(nearest))} tensors"


def _of_their_dimension(tensors: Mapping[str, Tensor]) -> list[WeightCard]:
    """Cards of slices or of volumes, as the convolution that makes patches is."""
    dims = 3 if any(t.ndim == 5 for t in tensors.values()) else 2
    return [c for c in CARDS.values() if c.spatial_dims == dims]


def _of_one_build(card: WeightCard) -> list[WeightCard]:
    """Cards whose encoders have the same tensors."""
    same = [c for c in CARDS.values() if c.architecture == card.architecture]
    return [c for c in same if _shapes_of(c) == _shapes_of(card)]


def _is_published(path: Path, card: WeightCard) -> bool:
    """Whether a file is called as its authors call it."""
    name, below = path.name.lower(), f"{path.absolute().parent.name}/{path.name}".lower()
    return any(
        fnmatchcase(below if "/" in pattern else name, pattern.lower()) for pattern in card.files
    )


def _is_named(card: WeightCard, words: set[str]) -> bool:
    """Whether the weights' name is among the words; short ones (`ct`, `v2`) any file name may have."""
    tag = card.name.split(".")[1]
    return len(tag) > 3 and tag in words


def _unlike(cards: list[WeightCard]) -> str:
    """Names of the options in which the cards differ, or other files might."""
    keys, unknown = (
        {key for card in cards for key in card.options},
        any(c.by_files_alone for c in cards),
    )
    return ", ".join(
        sorted(k for k in keys if unknown or len({str(c.options.get(k)) for c in cards}) > 1)
    )


def _shapes_of(card: WeightCard) -> dict[str, torch.Size]:
    return _shapes(card.architecture, json.dumps(card.options))


@cache
def _shapes(architecture: str, options: str) -> dict[str, torch.Size]:
    """Names and shapes of an architecture with these options (JSON), built without memory."""
    with torch.device("meta"):
        encoder = cast(nn.Module, build_encoder(architecture, **json.loads(options)))
    return {name: tensor.shape for name, tensor in encoder.state_dict().items()}
