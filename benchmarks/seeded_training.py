"""What a training seed costs: a seeded training against nnU-Net's own draws, in turn.

An epoch is that of nnU-Net's trainer around a small frozen encoder (16 slices of 128x128 pixels,
4 channels), validation batches included; the first epoch of each training warms up and is not
counted. Its CPU seconds are those of the trainer and its augmentation processes, which other
programs on the machine disturb less than the time that passes. Batches alone are drawn from one
augmentation process as fast as it makes them, which is what a fast GPU waits for. The last line
printed is JSON; a ratio is seconds with a seed divided by seconds without.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from scipy import ndimage

from measure import paired_ratio
from nnunet_fm.nnunet.plan_options import PlanOptions
from nnunet_fm.nnunet.planning import write_plans
from nnunet_fm.nnunet.recipe import Recipe
from nnunet_fm.nnunet.run_record import read_record
from nnunet_fm.nnunet.trainer import FrozenEncoderTrainer

DATASET, CASES, CHANNELS, SHAPE = "Dataset001_Noise", 10, 4, (24, 160, 160)
SIDE, BATCH, BATCHES, WARM_UP = 128, 16, 20, 6
ENCODER = "dinov3_nano8"
KINDS = {"without": None, "with": 1}  # training seeds


class Trainer(FrozenEncoderTrainer):
    """Two epochs of twenty iterations."""

    recipe = Recipe(epochs=2, iterations=20, validation_iterations=4)
    cpu_seconds = 0.0  # of the last epoch

    def on_epoch_start(self) -> None:
        """Note the CPU time so far."""
        self.before = cpu_time()
        super().on_epoch_start()

    def on_epoch_end(self) -> None:
        """Measure the epoch, without nnU-Net's figures and checkpoints."""
        self.cpu_seconds = cpu_time() - self.before
        super().on_epoch_end()


def cpu_time() -> float:
    """CPU seconds of this process and its children so far."""
    own = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (own, *own.children()))


def make_dataset(folder: Path) -> None:
    """Write smooth noise with a ball as lesion, as nnU-Net leaves preprocessed data."""
    data = folder / "nnUNetPlans_2d"
    data.mkdir(parents=True)
    axes = np.ogrid[tuple(slice(-1, 1, side * 1j) for side in SHAPE)]
    lesion = (sum(axis**2 for axis in axes) < 0.2).astype(np.int16)
    places = np.argwhere(lesion[None]).astype(int)
    for number in range(CASES):
        noise = np.random.default_rng(number).standard_normal((CHANNELS, *SHAPE), np.float32)
        images = ndimage.gaussian_filter(noise, (0, 1, 1, 1)) + lesion
        properties = {"class_locations": {1: places}, "shape_before_cropping": SHAPE}
        nnUNetDatasetBlosc2.save_case(
            images.astype(np.float32), lesion[None], properties, str(data / f"case{number}")
        )
    cases = [f"case{number}" for number in range(CASES)]
    files: dict[str, Any] = {
        "dataset.json": {
            "channel_names": {str(n): f"channel{n}" for n in range(CHANNELS)},
            "labels": {"background": 0, "lesion": 1},
            "numTraining": CASES,
            "file_ending": ".nii.gz",
        },
        "dataset_fingerprint.json": {},
        "splits_final.json": [{"train": cases[2:], "val": cases[:2]}],
        "nnUNetPlans.json": plans(),
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))


def plans() -> dict[str, Any]:
    """nnU-Net's plans, as far as a training of slices needs them."""
    resampling = {"is_seg": False, "order": 1}
    configuration = {
        "data_identifier": "nnUNetPlans_2d",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": BATCH,
        "patch_size": [SIDE, SIDE],
        "median_image_size_in_voxels": [float(side) for side in SHAPE[1:]],
        "spacing": [1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"] * CHANNELS,
        "use_mask_for_norm": [False] * CHANNELS,
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "batch_dice": True,
        "architecture": {
            "network_class_name": "some.UNet",
            "arch_kwargs": {"strides": [[1, 1], [2, 2]]},
            "_kw_requires_import": [],
        },
    }
    return {
        "dataset_name": DATASET,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "configurations": {"2d": configuration},
    }


def make_trainer(folder: Path, seed: int | None) -> Any:
    """Make the trainer of new plans, with a seed or without."""
    options = PlanOptions(
        encoder=ENCODER,
        decoder="primus",
        patch=(SIDE,),
        batch_size=BATCH,
        fov="native",
        intensity="stock",
        training_seed=seed,
        output=f"FM_{seed}",
        device="cpu",
    )
    written = write_plans(folder, options)
    description = json.loads((folder / "dataset.json").read_text())
    content = json.loads(written.path.read_text()) | {"continue_training": False}
    return Trainer(content, written.configuration, 0, description, torch.device("cpu"))


def epoch_seconds(folder: Path, seed: int | None) -> dict[str, float]:
    """Train, and return the duration of the last epoch and its CPU seconds."""
    trainer = make_trainer(folder, seed)
    trainer.run_training()
    record = read_record(Path(trainer.output_folder))
    passed = record.epoch_seconds[-1] if record else float("nan")
    return {"epoch": passed, "epoch, CPU": trainer.cpu_seconds}


def batch_seconds(folder: Path, seed: int | None) -> dict[str, float]:
    """Draw batches from one process, and return the seconds of one."""
    trainer = make_trainer(folder, seed)
    trainer.initialize()
    training, validation = trainer.get_dataloaders()
    for _ in range(WARM_UP):  # more than are kept ready
        next(training)
    started = time.perf_counter()
    for _ in range(BATCHES):
        next(training)
    seconds = (time.perf_counter() - started) / BATCHES
    for loader in (training, validation):
        loader._finish()
    return {"batch": seconds}


def main() -> None:
    """Measure epochs and batches, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    seconds: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            os.environ[name] = str(Path(temporary) / name)
        os.environ["nnUNet_n_proc_DA"] = "1"
        folder = Path(temporary) / "nnUNet_preprocessed" / DATASET
        make_dataset(folder)
        for measure in (epoch_seconds, batch_seconds):
            for _ in range(rounds):
                for name, seed in KINDS.items():
                    for what, value in measure(folder, seed).items():
                        found = seconds.setdefault(what, {kind: [] for kind in KINDS})
                        found[name].append(value)
    results = [
        {
            "measured": what,
            "reference_s": round(statistics.median(found["without"]), 3),
            "ours_s": round(statistics.median(found["with"]), 3),
            "ratio": paired_ratio(found["with"], found["without"]),
        }
        for what, found in seconds.items()
    ]
    print(json.dumps(results))


if __name__ == "__main__":
    main()
