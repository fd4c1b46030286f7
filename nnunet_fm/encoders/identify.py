"""Which weight card a file belongs to, told from its shapes, its name and how it was written."""

import re
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
    """Choose the card of a file by its shapes, then by the words of its name, then by its container.

    Raises:
        CheckpointError: no architecture comes near (the closest one is named), or cards of other numerics fit as well.
    """
    nearest, difference = closest(converted.tensors)
    if difference > MOST_DIFFERENT * len(_shapes(nearest.architecture)):
        raise CheckpointError(
            f"{path.name}: no known architecture has these {len(converted.tensors)} tensors; the closest, "
            f"{nearest.architecture}, differs in {difference}. Say which it is (a name from `nnunet-fm encoders list`, "
            "or timm/NAME): --encoder NAME to verify, --card NAME to plan"
        )
    fitting = [c for c in CARDS.values() if c.architecture == nearest.architecture and not c.shipped]
    words = set(re.split(r"[^a-z0-9]+", path.stem.lower()))
    for reason, chosen in (
        ("shapes and the weights' name in the file name", [c for c in fitting if c.name.split(".")[1] in words]),
        (
            "shapes and the family's name in the file name",
            [c for c in fitting if c.name.split("_")[0] in words - {"dinov3"}],
        ),
        (
            "shapes, and the container that the DINOv3 training code writes",
            [c for c in fitting if c.name.endswith(".trained") and containers],
        ),
        ("shapes", fitting),
    ):
        if len(chosen) == 1 or (chosen and all(c.options == chosen[0].options for c in chosen)):
            return chosen[0], reason
    names = " or ".join(c.name for c in fitting)
    raise CheckpointError(
        f"{path.name} holds the tensors of {nearest.architecture}, which {names} share, with different numerics "
        "(LayerNorm epsilon, rotary precision). Say which it is: --encoder NAME to verify, --card NAME to plan"
    )


def closest(tensors: Mapping[str, Tensor]) -> tuple[WeightCard, int]:
    """The card whose encoder is nearest in names and shapes, and how many tensors differ (biases set aside)."""
    given = {k: v.shape for k, v in tensors.items() if not k.endswith(("q_bias", "v_bias"))}

    def difference(card: WeightCard) -> int:
        expected = _shapes(card.architecture)
        unlike = sum(given.get(k) != shape for k, shape in expected.items() if k != "mask_token")
        return unlike + sum(k not in expected for k in given)

    dims = 3 if any(t.ndim == 5 for t in tensors.values()) else 2  # of the convolution that makes patches
    nearest = min((c for c in CARDS.values() if c.spatial_dims == dims), key=difference)
    return nearest, difference(nearest)


@cache
def _shapes(architecture: str) -> dict[str, torch.Size]:
    """Names and shapes of an architecture, built without memory."""
    with torch.device("meta"):
        encoder = cast(nn.Module, build_encoder(architecture))
    return {name: tensor.shape for name, tensor in encoder.state_dict().items()}
