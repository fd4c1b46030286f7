"""Small inputs of every command that writes: made here, or written by version 0.1."""

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from helpers.brats import write_small_brats
from helpers.label_files import write_labels
from helpers.planned_dataset import NAME, write_planned
from helpers.pretraining import small_mae2d_recipe, write_volume_file
from helpers.version_0_1 import MADE_IN, relocate, unpack


def make_inputs(folder: Path, place: Path) -> Path:
    """Make the inputs in a folder of their own.

    Args:
        folder: new folder.
        place: where they will be copied to before a command; absolute paths in them name it.
    """
    folder.mkdir(parents=True)
    old = unpack(folder.parent)
    for name in ("cache", "heads", "pretrain_run", "run", "store", "sweep/sweep"):
        (folder / name).parent.mkdir(exist_ok=True)
        os.replace(old / name, folder / name)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "small.yaml"):
        os.replace(old / "sweep" / name, folder / name)
    for part in ("run", "sweep", "nnUNet_preprocessed", "nnUNet_results"):
        for file in (folder / part).rglob("*.json"):
            file.write_text(file.read_text().replace(MADE_IN, str(place)))
    for file in (folder / "run").rglob("*.pth"):
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=False)
        content["init_args"] = relocate(content["init_args"], str(place))
        torch.save(content, file)
    _make_more(folder)
    return folder


def _make_more(folder: Path) -> None:
    write_small_brats(folder / "brats", 2, 1)
    planned = write_planned(folder.parent / "planned", 6)
    for name, made in (("nnUNet_raw", planned.raw), ("nnUNet_preprocessed", planned.preprocessed)):
        os.replace(made / NAME, folder / name / NAME)
    rng = np.random.default_rng(0)
    for case in range(3):
        truth = np.zeros((6, 12, 12), np.uint8)
        truth[1:5, 2:9, 2:9] = 1
        truth[2:4, 3:6, 3:6] = 2
        write_labels(folder / "truth" / f"case{case}.nii.gz", truth)
        shifted = np.roll(truth, int(rng.integers(1, 3)), 2)
        write_labels(folder / "predictions" / f"case{case}.nii.gz", shifted)
    for subject in range(2):
        write_volume_file(folder / "mri" / f"S{subject}" / "t1.nii.gz", subject)
    recipe = small_mae2d_recipe(optimiser={"steps": 4}, run={"save_every": 2})
    (folder / "mae2d.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "few.csv").write_text(
        "subject_id,T1\nS00,cache/volumes/S00/t1.nii.gz\nS01,cache/volumes/S01/t1.nii.gz\n"
    )
    _write_tables(folder)
    data = folder / "nnUNet_preprocessed/Dataset007_Small"
    (data / "nnUNetPlans_2d").mkdir()
    for truth in (data / "gt_segmentations").iterdir():  # names alone, as nothing is trained
        (data / "nnUNetPlans_2d" / truth.name.replace(".nii.gz", ".pkl")).touch()


def _write_tables(folder: Path) -> None:
    """Write tables of the cache's T1 volumes: for heads, and for probes."""
    with (folder / "cache/volumes/subjects.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for name, image in (("t1.csv", "T1"), ("probed.csv", "path")):
        lines = [f"subject_id,{image},split,label,age"]
        for row in rows:
            facts = (row["split"], row["label"], row["age"])
            lines.append(",".join([row["subject_id"], f"cache/volumes/{row['T1']}", *facts]))
        (folder / name).write_text("\n".join(lines) + "\n")
