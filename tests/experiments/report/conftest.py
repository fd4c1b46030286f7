"""Runs as nnU-Net leaves them, made without a training.

Two regions, four validation cases, three encoders.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from helpers.runs import CASES, DATASET, ENCODERS, REGIONS, SHAPE, Made, image, labels, write_run
from nnunet_fm.experiments.runs import Run, write_runs


@pytest.fixture
def made(tmp_path: Path) -> Made:
    raw, preprocessed, results = (tmp_path / n for n in ("raw", "preprocessed", "results"))
    for n, case in enumerate(CASES):
        image(labels(n), preprocessed / DATASET / "gt_segmentations" / f"{case}.nii.gz")
        image(labels(n), raw / DATASET / "labelsTr" / f"{case}.nii.gz")
        for channel in range(2):
            noise = np.random.default_rng(n + channel).random(SHAPE, np.float32)
            image(noise + labels(n), raw / DATASET / "imagesTr" / f"{case}_{channel:04d}.nii.gz")
    split = {"train": [f"t{n}" for n in range(10)], "val": list(CASES)}
    (preprocessed / DATASET / "splits_final.json").write_text(json.dumps([split]))
    facts = {
        "channel_names": {"0": "T1", "1": "FLAIR"},
        "labels": {"background": 0, **REGIONS},
        "regions_class_order": [1, 2],
        "numTraining": len(CASES),
        "file_ending": ".nii.gz",
    }
    (results / DATASET).mkdir(parents=True)
    for folder in (raw / DATASET, results):
        (folder / "dataset.json").write_text(json.dumps(facts))
    runs = []
    for encoder, shift in ENCODERS.items():
        for ratio in (0.2, 1.0):
            for seed in (1, 2):
                name = f"SW_{encoder}_r{ratio * 100:03.0f}_s{seed}"
                folder = results / DATASET / f"TheTrainer__{name}__2d_fm32" / "fold_0"
                runs.append(
                    Run(DATASET, encoder, ratio, seed, 0, "TheTrainer", name, "2d_fm32", folder)
                )
                write_run(runs[-1], shift + (ratio < 1))
    write_runs(runs, tmp_path / "sweep")
    return Made(raw, preprocessed, results, tmp_path / "sweep", runs)
