"""How long an extraction takes, measured on one or two inputs before it starts."""

import time
from collections.abc import Mapping

import torch

from nnunet_fm.encoders import Encoder
from nnunet_fm.features.embedding import embed_rows, rows_of
from nnunet_fm.features.opening import PRECISIONS
from nnunet_fm.features.recipe import FeatureRecipe
from nnunet_fm.internal.messages import counted

FEWEST = 5  # volumes, below which measuring takes too large a share of the time
FASTER = 0.7  # share of the time from which on the other precision is named
ROWS = 2  # slices that are timed; of volumes, one


def seconds_per_volume(
    encoder: Encoder, recipe: FeatureRecipe, device: torch.device
) -> dict[str, float]:
    """Time an encoder on a constant volume, after one input that is not timed.

    Args:
        encoder: frozen encoder.
        recipe: says the shape of the volumes and the precision.
        device: of the encoder; on a CPU both precisions are timed, as bfloat16 is fast only on
            processors that have units for it.

    Returns:
        Seconds for a whole volume, by precision, the recipe's first.
    """
    encoder = encoder.to(device)
    shape = recipe.preprocessing["shape"]
    channels = max(1, len(recipe.channels))
    rows = rows_of(encoder, torch.ones(channels, *shape))
    few = rows[:ROWS]
    others = [name for name in PRECISIONS if name != recipe.precision and device.type == "cpu"]
    seconds = {}
    for precision in (recipe.precision, *others):
        embed_rows(encoder, few[:1], precision, device)
        started = time.perf_counter()
        embed_rows(encoder, few, precision, device)
        seconds[precision] = (time.perf_counter() - started) * len(rows) / len(few)
    return seconds


def cost_text(volumes: int, seconds: Mapping[str, float], unit: str = "volume") -> str:
    """Say how long the encoder takes, and whether the other precision is faster.

    Args:
        volumes: number of them.
        seconds: of a volume, by precision, the chosen one first.
        unit: what a volume is called.

    Example:
        >>> cost_text(40, {"bfloat16": 30.0, "float32": 6.0})
        'the encoder takes about 20 min (40 volumes, 30 s each in bfloat16); with --precision \
float32, whose features are kept apart, 4 min'
    """
    (chosen, each), *others = seconds.items()
    text = f"the encoder takes about {_duration(volumes * each)} ({counted(volumes, unit)}, "
    text += f"{_duration(each)} each in {chosen})"
    for precision, other in others:
        if other < FASTER * each:
            text += f"; with --precision {precision}, whose features are kept apart, "
            text += _duration(volumes * other)
    return text


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
