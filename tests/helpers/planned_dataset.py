"""A dataset as nnU-Net leaves it after planning and preprocessing, made without nnU-Net."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = "Dataset031_Made"
Said = Callable[..., str]  # runs a command and returns what it printed
STOCK: dict[str, Any] = {
    "data_identifier": "nnUNetPlans_2d",
    "batch_size": 60,
    "patch_size": [224, 192],
    "median_image_size_in_voxels": [220.0, 190.0],
    "spacing": [1.0, 1.0],
    "normalization_schemes": ["ZScoreNormalization"],
    "use_mask_for_norm": [True],
    "architecture": {
        "network_class_name": "some.UNet",
        "arch_kwargs": {"strides": [[1, 1], [2, 2], [4, 4]]},
        "_kw_requires_import": [],
    },
}


@dataclass(frozen=True)
class Planned:
    """nnU-Net's folders."""

    raw: Path
    preprocessed: Path
    results: Path

    @property
    def dataset(self) -> Path:
        return self.preprocessed / NAME

    @property
    def environment(self) -> dict[str, str]:
        return {
            "nnUNet_raw": str(self.raw),
            "nnUNet_preprocessed": str(self.preprocessed),
            "nnUNet_results": str(self.results),
        }


def write_planned(root: Path, cases: int) -> Planned:
    """Write raw and preprocessed data; of the configurations 2d and 3d_fullres, 2d is complete."""
    planned = Planned(root / "raw", root / "preprocessed", root / "results")
    names = [f"case{n:02d}" for n in range(cases)]
    facts = {
        "channel_names": {"0": "FLAIR"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    deep = STOCK | {"patch_size": [64] * 3, "spacing": [1.0] * 3}
    plans = {
        "plans_name": "nnUNetPlans",
        "dataset_name": NAME,
        "label_manager": "LabelManager",
        "configurations": {
            "2d": STOCK,
            "3d_fullres": deep | {"data_identifier": "nnUNetPlans_3d_fullres"},
        },
    }
    (planned.raw / NAME).mkdir(parents=True)
    (planned.raw / NAME / "dataset.json").write_text(json.dumps(facts))
    for folder in ("nnUNetPlans_2d", "gt_segmentations"):
        (planned.dataset / folder).mkdir(parents=True)
    (planned.dataset / "dataset.json").write_text(json.dumps(facts))
    (planned.dataset / "nnUNetPlans.json").write_text(json.dumps(plans))
    for name in names:
        (planned.dataset / "nnUNetPlans_2d" / f"{name}.pkl").touch()
        (planned.dataset / "gt_segmentations" / f"{name}.nii.gz").touch()
    return planned


def listing(*folders: Path) -> dict[str, tuple[int, str]]:
    """Modification time and hash of every file and folder below some folders."""
    found = {}
    for folder in folders:
        for path in [folder, *sorted(folder.rglob("*"))]:
            content = path.read_bytes() if path.is_file() else b""
            digest = hashlib.sha256(content).hexdigest()
            found[str(path)] = (path.stat().st_mtime_ns, digest)
    return found
