"""Sliding-window prediction of one 155-slice volume with mirroring: stock nnU-Net against ours.

A small encoder (ViT-Ti/16) at 256x256 on a BraTS-sized volume (155x240x240, four channels). Stock
calls the network once per slice and mirrored copy, in float32. The lower bound is the same for
both: they do the same multiplications. What makes the difference is the batch size (one slice
leaves matrix units half empty) and the precision.

The last line printed is JSON. Seconds are medians over rounds. `max_abs_logit_diff` compares the
two in float32, with stock's half-precision sums widened to float32;
`max_abs_logit_diff_as_shipped` compares them without that change. `agreement` is the share of
voxels with the same label at our default precision.
"""

import argparse
import contextlib
import io
import json
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from nnunetv2.inference import predict_from_raw_data as stock
from torch import Tensor

from measure import Step, paired_ratio, take_turns
from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.nnunet.predictor import BatchedPredictor

SLICES, SIDE, PATCH = 155, 240, 256
CHANNELS, CLASSES = 4, 4


def network() -> FrozenEncoderNetwork:
    """A small network with fixed random weights whose logits are of ordinary size."""
    torch.manual_seed(0)
    return FrozenEncoderNetwork(CHANNELS, CLASSES, "dinov3_vitt16").eval()


def volume(slices: int) -> Tensor:
    """A z-scored volume: smooth noise with zero background."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(1, CHANNELS, slices // 4 + 2, 30, 30, generator=generator)
    return torch.nn.functional.interpolate(coarse, (slices, SIDE, SIDE), mode="trilinear")[0]


def predictor(kind: Callable[..., Any], **arguments: Any) -> Any:
    """A predictor of either kind around the same network."""
    with contextlib.redirect_stdout(io.StringIO()):
        made = kind(device=torch.device("cpu"), allow_tqdm=False, **arguments)
    made.network = network()
    made.configuration_manager = SimpleNamespace(patch_size=[PATCH, PATCH])
    made.label_manager = SimpleNamespace(num_segmentation_heads=CLASSES, has_regions=False)
    made.allowed_mirroring_axes = (0, 1)
    return made


def make_step(kind: str, slices: int) -> Step:
    """Predict the volume once."""
    made = predictor(stock.nnUNetPredictor) if kind == "stock" else predictor(BatchedPredictor)
    data = volume(slices)
    return partial(made.predict_sliding_window_return_logits, data)


@contextlib.contextmanager
def widened_sums() -> Iterator[None]:
    """Make stock nnU-Net sum in float32, so that only the effect of batching remains."""
    with mock.patch.object(stock.torch, "half", torch.float32):
        yield


def agreement(slices: int) -> dict[str, float]:
    """Differences between the two predictors' logits and labels."""
    data = volume(slices)
    with widened_sums():
        exact = predictor(stock.nnUNetPredictor).predict_sliding_window_return_logits(data)
    shipped = predictor(stock.nnUNetPredictor).predict_sliding_window_return_logits(data).float()
    same = predictor(BatchedPredictor, precision="float32").predict_sliding_window_return_logits(
        data
    )
    fast = predictor(BatchedPredictor).predict_sliding_window_return_logits(data)
    return {
        "max_abs_logit": round(float(exact.abs().max()), 3),
        "max_abs_logit_diff": float((exact - same).abs().max()),
        "max_abs_logit_diff_as_shipped": float((shipped - same).abs().max()),
        "agreement": round(float((exact.argmax(0) == fast.argmax(0)).float().mean()), 5),
    }


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slices", type=int, default=SLICES)
    given = parser.parse_args()
    makers = {kind: partial(make_step, kind, given.slices) for kind in ("stock", "ours")}
    seconds = take_turns(makers, given.rounds)
    result = {
        "slices": given.slices,
        "stock_s": round(statistics.median(seconds["stock"]), 2),
        "ours_s": round(statistics.median(seconds["ours"]), 2),
        "ratio": paired_ratio(seconds["stock"], seconds["ours"]),
        **agreement(given.slices),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
