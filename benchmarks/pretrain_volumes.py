"""Pretraining on volumes: samples per second and core, and a step of VolTA-3D.

Data: ours reads a volume from the store and cuts two global crops of 96 voxels and four local ones
of 48 out of it. MONAI's transforms do the same from the NIfTI file: read, orient, 1 mm, crop to the
brain, percentiles to 0 and 1, random boxes, resize. Both draw the boxes by one function, each in a
data loader with one worker. Lower bound: decompressing 3.5 million float16 voxels takes about 10
ms, and writing the crops is 2.2 million voxels.

Step: ours against the losses written plainly, with whole matrices of logits and all volumes at
once. The last line printed is JSON.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from jaxtyping import Float
from monai.transforms import (
    Compose,
    CropForeground,
    EnsureChannelFirst,
    LoadImage,
    Orientation,
    Resize,
    ScaleIntensityRangePercentiles,
    Spacing,
)
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import log_softmax, normalize, softmax
from torch.utils.data import DataLoader, Dataset

from measure import Step, one_thread, paired_ratio, seconds_per_sample, take_turns
from nnunet_fm.internal.device import keep_freed_memory
from nnunet_fm.network.activation_memory import kept_for_backward, total_bytes
from nnunet_fm_pretrain.data.prepare import prepare
from nnunet_fm_pretrain.data.prepare_group import PrepareOptions
from nnunet_fm_pretrain.data.preprocessing import VolumePreprocessing
from nnunet_fm_pretrain.data.volume_store import VolumeStore
from nnunet_fm_pretrain.engine.loader import make_loader
from nnunet_fm_pretrain.engine.optimiser import clip_gradients, make_optimiser
from nnunet_fm_pretrain.methods.recipes import read_recipe
from nnunet_fm_pretrain.methods.volta3d.batches import Volta3dBatch, Volta3dBatches
from nnunet_fm_pretrain.methods.volta3d.objective import Volta3d
from nnunet_fm_pretrain.methods.volta3d.recipe import Volta3dRecipe
from nnunet_fm_pretrain.methods.volta3d.views import random_cube

SHAPE, VOLUMES, BATCH, PER_ROUND = (170, 210, 180), 6, 2, 2
UNCHANGED = (  # of what MONAI's pipeline does not do either
    "views.teacher={gamma: 0, scale: 0}",
    "views.student={gamma: 0, scale: 0, noise: 0, blur: 0}",
)
TINY = ("encoder.architecture=volta3d_nano8", "views.global_size=48", "views.local_size=24")


def write_volumes(folder: Path) -> list[Path]:
    """Smooth noise inside an ellipsoid, as compressed NIfTI files of 1 mm."""
    rng = np.random.default_rng(0)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    inside = (x / 0.8) ** 2 + (y / 0.85) ** 2 + (z / 0.8) ** 2 < 1
    files = []
    for number in range(VOLUMES):
        noise = ndimage.gaussian_filter(rng.standard_normal(SHAPE).astype("f4"), 1.5)
        values = (500 + 100 * noise / noise.std()).clip(1) * inside
        file = folder / f"in/S{number}/t1.nii.gz"
        file.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(values.astype(np.int16), np.eye(4)), file)
        files.append(file)
    return files


class WithMonai(Dataset[tuple[Tensor, Tensor]]):
    """The same crops with MONAI's transforms."""

    def __init__(self, files: list[Path], recipe: Volta3dRecipe) -> None:
        self.files, self.views = files, recipe.views
        self.read = Compose(
            [
                LoadImage(image_only=True),
                EnsureChannelFirst(),
                Orientation(axcodes="LPS", labels=None),
                Spacing(pixdim=(1.0, 1.0, 1.0)),
                CropForeground(),
                ScaleIntensityRangePercentiles(0.5, 99.5, 0.0, 1.0, clip=True),
            ]
        )
        self.whole = Resize((recipe.views.global_size,) * 3, mode="area")
        self.part = Resize((recipe.views.local_size,) * 3, mode="area")

    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        volume = self.read(self.files[index % len(self.files)])
        rng, views = np.random.default_rng(index), self.views

        def crop(scale: tuple[float, float]) -> Any:
            shape = tuple(volume.shape[1:])
            box = random_cube(shape, (1.0, 1.0, 1.0), scale, views.anisotropy, rng)
            return volume[(slice(None), *box)]

        large = torch.stack([self.whole(crop(views.global_scale)) for _ in range(2)])
        small = [self.part(crop(views.local_scale)) for _ in range(views.local_crops)]
        return large, torch.stack(small)


def batches(kind: str, store: Path, files: list[Path]) -> Iterator[Any]:
    """Batches out of a loader with one worker."""
    recipe = read_recipe("volta3d_vitb16", [f"optimiser.batch_size={BATCH}", *UNCHANGED])
    if kind == "ours":
        made = Volta3dBatches(VolumeStore(store), recipe, patch=16)
        return iter(make_loader(made, 0, 10_000, workers=1, pin=False))
    data = WithMonai(files, recipe)
    options: dict[str, Any] = {"num_workers": 1, "worker_init_fn": one_thread}
    return iter(DataLoader(data, BATCH, multiprocessing_context="spawn", **options))


def data_speed(rounds: int) -> dict[str, float]:
    """Volumes per second of both, in turn."""
    per_volume: dict[str, list[float]] = {"ours": [], "monai": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_volumes(folder)
        unit = PrepareOptions(folder / "store", VolumePreprocessing(intensity="0 to 1"))
        prepare(folder / "in", unit)
        for _ in range(2):
            for kind, measured in per_volume.items():
                source = batches(kind, folder / "store", files)
                measured += seconds_per_sample(source, 4, rounds, PER_ROUND, BATCH)
    result = {f"{k}_per_core": round(1 / statistics.median(v), 2) for k, v in per_volume.items()}
    return {**result, "data_ratio": paired_ratio(per_volume["monai"], per_volume["ours"])}


def crops(recipe: Volta3dRecipe) -> Volta3dBatch:
    """Random crops, half of whose patches are hidden."""
    generator = torch.Generator().manual_seed(0)
    views, volumes = recipe.views, recipe.optimiser.batch_size
    shape = (2, volumes, 1, *(views.global_size,) * 3)
    large = [torch.rand(shape, generator=generator).half() for _ in range(3)]
    hidden = torch.zeros(2, volumes, *(views.global_size // 8,) * 3, dtype=torch.bool)
    hidden[:, :, ::2] = True
    local = (views.local_crops, volumes, 1, *(views.local_size,) * 3)
    return Volta3dBatch(*large, hidden, torch.rand(local, generator=generator).half())


def plain_loss(made: Volta3d, batch: Volta3dBatch) -> Tensor:
    """The equations of section II.B, as one would write them."""
    student, teacher = made.student, made.teacher

    def project(head: Any, tokens: Tensor, name: str) -> Float[Tensor, "*rows k"]:
        layer = head.last_layer if name == "global" else head.patch_last_layer
        return head(tokens) @ normalize(layer, dim=-1).T

    with torch.no_grad():
        taught = teacher.tokens(batch.teacher.float().flatten(0, 1)).patches
        targets = {
            "patch": softmax(project(teacher.head, taught, "patch").float() / 0.04, -1),
            "global": softmax(
                project(teacher.head, teacher.summariser(taught), "global").float() / 0.04, -1
            ).chunk(2),
        }
    seen = student.tokens(batch.corrupted.float().flatten(0, 1))
    local = student.tokens(batch.local.float().flatten(0, 1))
    views = [
        *student.summariser(seen.patches).chunk(2),
        *student.summariser(local.patches).chunk(len(batch.local)),
    ]
    likely = [log_softmax(project(student.head, v, "global").float() / 0.1, -1) for v in views]
    pairs = [
        -(t * s).sum(-1).mean()
        for i, t in enumerate(targets["global"])
        for j, s in enumerate(likely)
        if i != j
    ]
    patches = log_softmax(project(student.head, seen.patches, "patch").float() / 0.1, -1)
    patch = -(targets["patch"] * patches).sum(-1).mean()
    predicted = made.decoder(student.encoder.as_map(*seen)).float()
    voxels = batch.hidden.flatten(0, 1)[:, None].float()
    voxels = torch.nn.functional.interpolate(voxels, scale_factor=8).bool()
    error = (predicted - batch.student.float().flatten(0, 1))[voxels] ** 2
    total: Tensor = sum(pairs) / len(pairs) + patch + 100 * error.mean()
    return total


def build(kind: str, micro_batch: int | None) -> tuple[Volta3d, Any]:
    """The objective, and a function that computes gradients of a batch."""
    size = "null" if micro_batch is None else str(micro_batch)
    words = [*TINY, f"run.micro_batch={size}", "optimiser.batch_size=8"]
    recipe = read_recipe("volta3d_vitb16", words)
    made = Volta3d(recipe).train()
    batch = crops(recipe)

    def gradients() -> None:
        parts = [batch] if kind == "plain" else made.micro_batches(batch)
        for part in parts:
            with torch.autocast("cpu", torch.bfloat16):
                plain = kind == "plain"
                loss = plain_loss(made, part) if plain else made(part, 0, "main").total
            (loss / len(parts)).backward()

    return made, gradients


def make_step(kind: str) -> Step:
    """Forward, losses, backward, clipping, optimiser, teacher."""
    keep_freed_memory()
    made, gradients = build(kind, 1 if kind == "one_by_one" else None)
    optimiser = make_optimiser(made.trainable_modules("main"), made.recipe.optimiser)

    def step() -> None:
        gradients()
        clip_gradients(made.trainable_modules("main"), 3.0)
        optimiser.step()
        optimiser.zero_grad()
        made.after_step(0)

    return step


def saved_mib(kind: str) -> float:
    """MiB kept for the backward pass of what is computed at a time."""
    made, _ = build(kind, 1)
    batch = crops(made.recipe)
    part = made.micro_batches(batch)[0] if kind == "one_by_one" else batch
    with kept_for_backward(made) as kept, torch.autocast("cpu", torch.bfloat16):
        plain_loss(made, part) if kind == "plain" else made(part, 0, "main")
    return round(total_bytes(kept) / 2**20, 1)


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    result: dict[str, Any] = dict(data_speed(rounds))
    kinds = ("plain", "ours", "one_by_one")
    seconds = take_turns({kind: partial(make_step, kind) for kind in kinds}, rounds)
    for kind in kinds:
        result[f"{kind}_s"] = round(statistics.median(seconds[kind]), 3)
        result[f"{kind}_mib"] = saved_mib(kind)
    result["step_ratio"] = paired_ratio(seconds["plain"], seconds["ours"])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
