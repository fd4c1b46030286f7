"""Pretraining data in slices per second and core: read, crop (2 of 256 px, 8 of 112), hand over.

Ours (OpenCV on one channel of float32, handed over as float16) takes turns with torchvision's v2
transforms. Both use the same slices from the same store, each in a data loader with one worker.
Lower bound: writing the crops is 0.23 million pixels per slice, the OpenCV resizes take about 1
ms, and reading a zstd slice takes 0.3 to 0.5 ms. The last line printed is JSON.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode, v2

from measure import one_thread, paired_ratio, seconds_per_sample
from nnunet_fm_pretrain.data.array_files import write_volume
from nnunet_fm_pretrain.data.records import SliceRecord, write_manifest
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.engine.loader import make_loader
from nnunet_fm_pretrain.methods.braindino.batches import MultiCropBatches, SliceSource
from nnunet_fm_pretrain.methods.braindino.recipe import BrainDinoRecipe
from nnunet_fm_pretrain.methods.recipes import read_recipe

SIDE, SLICES, VOLUMES, BATCH, PER_ROUND = 256, 64, 6, 32, 4
WITHOUT_MASKS = ("objective.masks.probability=0",)  # torchvision has none


def make_store(folder: Path) -> None:
    """Smooth noise inside an ellipse: compresses about as real slices do (62 kB each)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    inside = (y / 0.95) ** 2 + (x / 0.8) ** 2 < 1
    records: list[SliceRecord] = []
    for number in range(VOLUMES):
        slices = ndimage.gaussian_filter(
            rng.standard_normal((SLICES, SIDE, SIDE)).astype("f4"), (0, 1.5, 1.5)
        )
        about: dict[str, Any] = {
            "dataset": "d",
            "subject": f"s{number}",
            "session": "",
            "sequence": "T1",
            "licence": "",
        }
        about |= {
            "source_sha256": str(number),
            "preprocessing": "",
            "registered": "",
            "volume": f"d/s{number}",
        }
        values = slices / slices.std() * inside
        about |= {"slices": tuple(range(SLICES)), "size": SIDE}
        chunk = (1, SIDE, SIDE)
        records.append(write_volume(folder, values, SliceRecord, chunk, False, **about))
    write_manifest(folder / "manifest.jsonl", records)


class WithTorchvision(Dataset[tuple[Tensor, Tensor]]):
    """The same crops with torchvision's transforms, as DINOv3's loader composes them."""

    def __init__(self, folder: Path, recipe: BrainDinoRecipe) -> None:
        self.store, views = SliceStore(folder), recipe.views
        self.local_crops = views.local_crops

        def crop(side: int, scale: tuple[float, float], blur: float) -> Any:
            resized = v2.RandomResizedCrop(
                side, scale, interpolation=InterpolationMode.BICUBIC, antialias=True
            )
            blurred = v2.RandomApply([v2.GaussianBlur(views.blur.kernel, views.blur.sigma)], blur)
            return v2.Compose([resized, v2.RandomHorizontalFlip(views.flip), blurred])

        self.first = crop(256, views.global_scale, views.blur.global_1)
        self.second = crop(256, views.global_scale, views.blur.global_2)
        self.local = crop(112, views.local_scale, views.blur.local)

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = torch.from_numpy(self.store.read(index))[None]
        global_crops = torch.stack([self.first(image), self.second(image)])
        return global_crops, torch.stack([self.local(image) for _ in range(self.local_crops)])


def batches(kind: str, folder: Path) -> Iterator[Any]:
    """Batches out of a loader with one worker."""
    recipe = read_recipe("braindino_stage1", [f"optimiser.batch_size={BATCH}", *WITHOUT_MASKS])
    if kind == "ours":
        source = SliceSource(SliceStore(folder), recipe.views.fusion)
        made = MultiCropBatches(source, recipe, patch=16)
        return iter(make_loader(made, 0, 10_000, workers=1, pin=False))
    data = WithTorchvision(folder, recipe)
    order = torch.arange(10_000 * BATCH).remainder(len(data)).tolist()
    return iter(
        DataLoader(
            data,
            BATCH,
            sampler=order,
            num_workers=1,
            worker_init_fn=one_thread,
            multiprocessing_context="spawn",
        )
    )


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        make_store(Path(name))
        # in turn, a loader alone at a time: a worker runs ahead while the other is measured
        per_slice: dict[str, list[float]] = {"ours": [], "torchvision": []}
        for _ in range(2):
            for kind, measured in per_slice.items():
                source = batches(kind, Path(name))
                measured += seconds_per_sample(source, 6, rounds, PER_ROUND, BATCH)
    speeds = {kind: 1 / statistics.median(values) for kind, values in per_slice.items()}
    result = {f"{kind}_per_core": round(speed, 1) for kind, speed in speeds.items()}
    print(
        json.dumps({**result, "ratio": paired_ratio(per_slice["torchvision"], per_slice["ours"])})
    )


if __name__ == "__main__":
    main()
