"""Small volumes and a recipe that runs in a second."""

from pathlib import Path

import nibabel as nib
import numpy as np

from nnunet_fm_pretrain.data.preprocessing import Preprocessing

SMALL = Preprocessing(size=32, slices=8)


def write_volume_file(
    path: Path,
    seed: int = 0,
    shape: tuple[int, ...] = (24, 28, 20),
    affine: np.ndarray | None = None,
) -> Path:
    """A noisy ellipsoid on 0, brighter towards the front."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    inside = sum((g / 0.8) ** 2 for g in grid) < 1
    values = (100 + 40 * grid[1] + 10 * rng.standard_normal(shape)) * inside
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(
        nib.Nifti1Image(values.astype(np.float32), np.eye(4) if affine is None else affine), path
    )
    return path


def small_recipe(**parts: object) -> dict[str, object]:
    """Plain data of a recipe for two processes on a small network."""
    head = {"hidden": 16, "bottleneck": 8, "prototypes": 24}
    content: dict[str, object] = {
        "stage": 1,
        "encoder": {
            "architecture": "dinov3_test16",
            "layer_scale": 0.1,
            "drop_path": 0.2,
            "rope_rescale": 2.0,
        },
        "views": {"pairs": [{"global_size": 32, "local_size": 16}], "local_crops": 2},
        "objective": {"dino_head": head, "ibot_head": head, "freeze_last_layer_steps": 1},
        "optimiser": {"steps": 20, "batch_size": 4, "peak_lr": 1e-3, "warmup_steps": 2},
        "run": {"precision": "32-true", "workers": 0, "save_every": 3, "keep": 10, "log_every": 2},
    }
    for part, changes in parts.items():
        former = content.get(part)
        content[part] = (
            {**former, **changes}
            if isinstance(former, dict) and isinstance(changes, dict)
            else changes
        )
    return content
