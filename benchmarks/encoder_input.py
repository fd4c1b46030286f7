"""What the encoder sees: a linear probe of its tokens for each way to feed it MRI channels.

Lesion or not, in cells of 8x8 pixels, from few training patients; the others are tested. The data
are a configuration of slices that nnU-Net has preprocessed, as the network gets them:

    python encoder_input.py FOLDER --split splits_final.json --folds 2,3,4

with FOLDER e.g. nnUNet_preprocessed/Dataset501_LGG/nnUNetPlans_2d_fit128_2mm. Patients are the
validation cases of the folds, so that other folds stay for the test of what is chosen here. Each
line printed is JSON: average precision of pooled cells, mean and standard deviation over draws of
the training patients.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from torch.nn import functional

from nnunet_fm.encoders import load_encoder, random_state
from nnunet_fm.internal.json_files import read_list
from nnunet_fm.network import FrozenEncoderNetwork
from nnunet_fm_pretrain.probing.linear_probes import dense_probe

CELL, SIDE, BATCH = 8, 128, 32
ENCODER_CHANNELS = 3
Rows = tuple[np.ndarray, np.ndarray]


def ways(channels: int) -> dict[str, dict[str, Any]]:
    """Return the network's arguments for each way to feed so many channels to the encoder."""
    last = list(range(channels))[-ENCODER_CHANNELS:]
    chosen = last + last[-1:] * (ENCODER_CHANNELS - len(last))
    each: dict[str, Any] = {"fusion": "fixed", "channels": chosen}
    return {
        "mean": {"fusion": "fixed"},
        "separate": {"fusion": "separate"},
        f"channels {chosen}": each,
        "separate, enlarged twice": {"fusion": "separate", "encoder_scale": 2},
        f"channels {chosen}, enlarged twice": {**each, "encoder_scale": 2},
    }


def read_cases(folder: Path, names: list[str]) -> dict[str, tuple[torch.Tensor, np.ndarray]]:
    """Read slices (z, c, y, x), padded to a square, and the labels of their cells.

    Raises:
        ValueError: slices that are larger than the square.
    """
    dataset, cases = nnUNetDatasetBlosc2(str(folder)), {}
    for name in names:
        images, labels, *_ = dataset.load_case(name)
        both = torch.from_numpy(np.concatenate([images[:], labels[:]]).astype(np.float32))
        height, width = both.shape[2:]
        if max(height, width) > SIDE:
            raise ValueError(f"{name}: slices of {height}x{width}; allowed: up to {SIDE}x{SIDE}")
        square = functional.pad(both, (0, SIDE - width, 0, SIDE - height)).transpose(0, 1)
        share = functional.avg_pool2d((square[:, -1:] > 0).float(), CELL)
        cases[name] = square[:, :-1], (share.flatten() >= 0.5).long().numpy()
    return cases


def pixel_rows(slices: torch.Tensor) -> np.ndarray:
    """Return means of 3x3 cells and deviations: what a local rule of brightness knows."""
    mean = functional.avg_pool2d(slices, CELL)
    deviation = (functional.avg_pool2d(slices**2, CELL) - mean**2).clamp(min=0).sqrt()
    around = functional.unfold(functional.pad(mean, (1, 1, 1, 1), mode="replicate"), 3)
    return _rows(torch.cat([deviation, around.unflatten(2, mean.shape[2:])], 1))


@torch.inference_mode()
def token_rows(network: FrozenEncoderNetwork, slices: torch.Tensor) -> np.ndarray:
    """Return all tapped maps, resized to the grid of the cells."""
    parts = []
    for batch in slices.split(BATCH):
        cells = [side // CELL for side in batch.shape[2:]]
        maps = [
            functional.interpolate(m.float(), cells, mode="bilinear") for m in network.encode(batch)
        ]
        parts.append(torch.cat(maps, 1))
    return _rows(torch.cat(parts))


def _rows(maps: torch.Tensor) -> np.ndarray:
    return maps.permute(0, 2, 3, 1).flatten(0, 2).numpy()


def report(name: str, cases: dict[str, Rows], patients: int, draws: int) -> None:
    """Probe with several draws of the training patients, and print a line."""
    values = []
    for draw in range(draws):
        chosen = np.random.default_rng(draw).choice(sorted(cases), patients, replace=False)
        train = [cases[c] for c in chosen]
        test = [rows for c, rows in cases.items() if c not in chosen]
        values.append(dense_probe(name, train, test).value)
    result = {"input": name, "ap": np.mean(values), "deviation": np.std(values), "draws": draws}
    print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in result.items()}))


def main() -> None:
    """Measure pixels, the encoder and its random counterpart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="preprocessed configuration")
    parser.add_argument("--split", type=Path, required=True, help="splits_final.json")
    parser.add_argument("--folds", default="2,3,4")
    parser.add_argument("--encoder", default="synth_vitt16")
    parser.add_argument("--patients", type=int, default=2)
    parser.add_argument("--draws", type=int, default=8)
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    splits = read_list(parsed.split)
    names = sorted(case for fold in parsed.folds.split(",") for case in splits[int(fold)]["val"])
    read = read_cases(parsed.folder, names)
    pixels = {name: (pixel_rows(slices), labels) for name, (slices, labels) in read.items()}
    report("pixels", pixels, parsed.patients, parsed.draws)
    encoder, loaded = load_encoder(parsed.encoder)
    weights = encoder.state_dict()
    random = random_state(loaded.architecture, 0, **loaded.options)
    channels = next(iter(read.values()))[0].shape[1]
    for kind, state in (("random weights", random), (parsed.encoder, weights)):
        for way, arguments in ways(channels).items():
            network = FrozenEncoderNetwork(
                channels, 2, loaded.architecture, loaded.options, decoder="detail", **arguments
            )
            network.eval().encoder.load_state_dict(state)
            rows = {name: (token_rows(network, x), labels) for name, (x, labels) in read.items()}
            report(f"{kind}, {way}", rows, parsed.patients, parsed.draws)


if __name__ == "__main__":
    main()
