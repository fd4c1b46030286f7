"""Which weight card a file belongs to, told from its shapes, its name and how it was written."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from nnunet_fm.encoders.cards import CARDS, WeightCard
from nnunet_fm.encoders.formats import Converted
from nnunet_fm.encoders.reading import CheckpointError
from nnunet_fm.encoders.registry import build_encoder

MOST_DIFFERENT = 0.2  # share of tensors that may differ for a file still to be taken for a damaged one of its kind


def identify(path: Path, converted: Converted, containers: list[str]) -> tuple[WeightCard, str]:
    """Choose the card of a file by its shapes, then by its name, its container and its rotary precision.

    Raises:
        CheckpointError: no architecture comes near; the closest one is named.
    """
    nearest, difference = closest(converted.tensors)
    if difference > MOST_DIFFERENT * len(_shapes(nearest.architecture)):
        raise CheckpointError(
            f"{path.name}: no known architecture has these {len(converted.tensors)} tensors; the closest, "
            f"{nearest.architecture}, differs in {difference}. Say which it is (a name from `nnunet-fm encoders list`, "
            "or timm/NAME): --encoder NAME to verify, --card NAME to plan"
        )
    fitting = [c for c in CARDS.values() if c.architecture == nearest.architecture]
    named = [c for c in fitting if c.name.split("_")[0] in path.stem.lower() and not c.name.endswith(".trained")]
    if len(named) == 1:
        return named[0], "shapes and file name"
    trained = [c for c in fitting if c.name.endswith(".trained")]
    if trained and (containers or converted.notes.get("rope_periods") == "stored bfloat16"):
        return trained[0], "shapes, and the container or rotary periods of the training code"
    rest = named or [c for c in fitting if not c.ignored] or fitting
    return rest[0], "shapes"


def closest(tensors: Mapping[str, Tensor]) -> tuple[WeightCard, int]:
    """The card whose encoder is nearest in names and shapes, and how many tensors differ (biases set aside)."""
    given = {k: v.shape for k, v in tensors.items() if not k.endswith(("q_bias", "v_bias"))}

    def difference(card: WeightCard) -> int:
        expected = _shapes(card.architecture)
        unlike = sum(given.get(k) != shape for k, shape in expected.items() if k != "mask_token")
        return unlike + sum(k not in expected for k in given)

    nearest = min(CARDS.values(), key=difference)
    return nearest, difference(nearest)


@cache
def _shapes(architecture: str) -> dict[str, torch.Size]:
    """Names and shapes of an architecture, built without memory."""
    with torch.device("meta"):
        encoder = cast(nn.Module, build_encoder(architecture))
    return {name: tensor.shape for name, tensor in encoder.state_dict().items()}
