"""Sweep of heads on cached features: 6 ratios x 5 seeds, 2,000 subjects x 768 features, 3 classes.

Ours: `run_job` as `nnunet-fm heads run` calls it (subsets, training, predictions, BCa intervals,
files), in CPU seconds of one thread, for the paper's head and for the linear model. Lower bound of
the head: 500 steps x 30 heads of 38 MFLOP and of 5.5 MB of Adam's state each, about 0.6 ms a step.

Reference: the released runners have the encoder inside the training loop, so every epoch (8)
encodes its training and validation volumes again. A ViT-S/16 is measured on one batch of slices of
256 x 256 and EXTRAPOLATED to 128 slices per volume; both sides include the heads.
`ratio_once_a_run` compares with a milder reference that encodes once for each of the 30 runs.

The last line printed is JSON.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from nnunet_fm.encoders import build_encoder
from nnunet_fm.heads.runner import run_task
from nnunet_fm.heads.targets import Targets
from nnunet_fm.heads.task import Task
from nnunet_fm.heads.task_data import TaskData

SUBJECTS, TESTED, WIDTH, CLASSES = 2000, 500, 768, 3
SLICES, SIDE, EPOCHS = 128, 256, 8
TASK = {"kind": "classification", "target": "label"}


def make_data(model: str) -> TaskData:
    """Make features in which the classes overlap."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, SUBJECTS)
    x = (
        rng.standard_normal((SUBJECTS, WIDTH))
        + 0.05 * rng.standard_normal((CLASSES, WIDTH))[labels]
    ).astype(np.float32)
    targets = Targets(
        np.arange(SUBJECTS),
        labels.astype(float),
        np.ones(SUBJECTS, bool),
        tuple(map(str, range(CLASSES))),
        0,
    )
    names = [f"s{n}" for n in range(SUBJECTS)]
    splits = ["test" if n < TESTED else "train" for n in range(SUBJECTS)]
    return TaskData(
        model,
        "bench",
        Task.model_validate(TASK | {"models": (model,)}),
        x,
        targets,
        names,
        names,
        splits,
    )


def sweep_seconds(model: str) -> tuple[float, float]:
    """Return the CPU seconds of a sweep, and its last AUC."""
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(model)
        started = time.process_time()
        run = run_task(data, Path(folder), figures=False)
        seconds = time.process_time() - started
    return seconds, [result.value for result in run.results if result.metric == "AUC"][-1]


def volume_seconds(batch: int) -> float:
    """Return the CPU seconds of ViT-S/16 for a volume, extrapolated from one batch of slices."""
    encoder = build_encoder("dinov3_vits16").eval()
    x = torch.randn(batch, 3, SIDE, SIDE)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        encoder.embed(x[:2])
        started = time.process_time()
        encoder.embed(x)
    return (time.process_time() - started) / batch * SLICES


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    batch = parser.parse_args().batch
    torch.set_num_threads(1)
    with threadpool_limits(1):  # torch's setting does not reach scikit-learn
        mlp, area = sweep_seconds("mlp")
        linear, _ = sweep_seconds("linear")
    task = make_data("mlp").task
    volume = volume_seconds(batch)
    training = SUBJECTS - TESTED
    passes = task.seeds * sum(EPOCHS * (r * training + TESTED) for r in task.ratios)
    runs = task.seeds * len(task.ratios)
    once = SUBJECTS * volume
    result = {
        "heads": runs,
        "mlp_cpu_s": round(mlp, 1),
        "linear_cpu_s": round(linear, 1),
        "mlp_auc": round(area, 3),
        "encoder_volume_cpu_s": round(volume, 2),
        "extrapolated": True,
        "volume_passes": round(passes),
        "ratio": round((passes * volume + mlp) / (once + mlp), 1),
        "ratio_once_a_run": round((runs * once + mlp) / (once + mlp), 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
