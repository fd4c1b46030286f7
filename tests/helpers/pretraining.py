"""Small volumes, recipes that run in a second, and runs of two processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
import yaml

from nnunet_fm.internal.files import walk_files
from nnunet_fm_pretrain.data.preprocessing import Preprocessing
from nnunet_fm_pretrain.engine import checkpoints
from nnunet_fm_pretrain.engine.objective import Losses
from nnunet_fm_pretrain.engine.recipe import Recipe
from nnunet_fm_pretrain.runs import pretrain

SMALL = Preprocessing(size=32, slices=8)
RUN = {
    "precision": "32-true",
    "workers": 0,
    "threads": 1,
    "save_every": 3,
    "keep": 10,
    "log_every": 2,
}


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


def merged(content: dict[str, object], parts: dict[str, object]) -> dict[str, object]:
    """Replace parts of a recipe's plain data; of parts that are dicts, single keys."""
    for part, changes in parts.items():
        former = content.get(part)
        if isinstance(former, dict) and isinstance(changes, dict):
            changes = {**former, **changes}
        content[part] = changes
    return content


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
        "run": dict(RUN),
    }
    return merged(content, parts)


def small_mae2d_recipe(**parts: object) -> dict[str, object]:
    """Plain data of a masked autoencoder's recipe."""
    sizes = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
    optimiser = {"steps": 8, "batch_size": 4, "peak_lr": 1e-3, "warmup_steps": 2}
    content: dict[str, object] = {
        "encoder": {"architecture": "dinov3_nano8"},
        "views": {"size": 32},
        "objective": {"method": "mae2d", **sizes},
        "optimiser": optimiser,
        "run": dict(RUN),
    }
    return merged(content, parts)


def small_brainfound_recipe(**parts: object) -> dict[str, object]:
    """Plain data of a recipe of BrainFound: slabs of 3 slices of T1 and FLAIR."""
    content = small_recipe()
    del content["stage"]
    content |= {
        "encoder": {"architecture": "dinov2_test14", "image_size": 28, "layer_scale": 0.1},
        "slabs": {"sequences": ["T1", "FLAIR"], "slices": 3},
        "views": {"pairs": [{"global_size": 28, "local_size": 14}], "local_crops": 2},
    }
    objective = content["objective"]
    assert isinstance(objective, dict)
    objective["method"] = "brainfound"
    return merged(content, parts)


def small_volta3d_recipe(**parts: object) -> dict[str, object]:
    """Plain data of a recipe of VolTA-3D: crops of 16 and 8 voxels."""
    head = {"hidden": 16, "bottleneck": 8, "prototypes": 24, "normalised": True}
    content: dict[str, object] = {
        "encoder": {"architecture": "volta3d_test8"},
        "views": {
            "global_size": 16,
            "local_size": 8,
            "local_crops": 2,
        },
        "objective": {"method": "volta3d", "head": head, "freeze_last_layer_steps": 1},
        "optimiser": {"steps": 20, "batch_size": 4, "peak_lr": 1e-3, "warmup_steps": 2},
        "run": dict(RUN),
    }
    return merged(content, parts)


def small_brainfm_recipe(**parts: object) -> dict[str, object]:
    """Plain data of a recipe of BrainFM-MRI: cubes of 32 voxels of T1, T2 and FLAIR."""
    decoder = {"decoder_depth": 1, "decoder_heads": 2, "decoder_hidden": 48}
    content: dict[str, object] = {
        "encoder": {"architecture": "brainfm_test8"},
        "sessions": {"names": ["T1", "T2", "FLAIR"], "size": 32},
        "objective": {"method": "brainfm", **decoder},
        "optimiser": {"steps": 20, "batch_size": 4, "peak_lr": 1e-3, "warmup_steps": 2},
        "run": dict(RUN),
    }
    return merged(content, parts)


def small_prism_recipe(**parts: object) -> dict[str, object]:
    """Plain data of a recipe of PRISM: crops of 32 voxels."""
    content: dict[str, object] = {
        "encoder": {"architecture": "prism_test12"},
        "views": {"size": 32},
        "objective": {"method": "prism", "projection": 16, "generator_every": 2},
        "optimiser": {
            "steps": 20,
            "batch_size": 4,
            "peak_lr": 1e-3,
            "warmup_steps": 2,
            "layer_decay": 1.0,
            "patch_embed_lr": 1.0,
        },
        "run": dict(RUN),
    }
    return merged(content, parts)


def trained_on(made: Any, batch: Any, step: int, rate: float, times: int) -> Losses:
    """The losses after training the main phase on one batch again and again."""
    modules = made.trainable_modules("main").values()
    optimiser = torch.optim.AdamW([p for m in modules for p in m.parameters()], rate)
    for _ in range(times):
        optimiser.zero_grad()
        losses: Losses = made(batch, step, "main")
        losses.total.backward()
        optimiser.step()
    return losses


def run_two_processes(recipe: Path, store: Path, run: Path, *import_paths: Path) -> None:
    """`pretrain run` by torchrun, with more folders to import from."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    command = ["-m", "nnunet_fm_pretrain", "run", str(recipe), "--store", str(store)]
    paths = [*map(str, import_paths), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *launcher, *command, "-o", str(run)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def trained_by_one_and_two(
    content: dict[str, object], store: Path, folder: Path
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The objective's state after the run of a recipe by one process, and by two."""
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(content))
    run_two_processes(file, store, folder / "two")
    pretrain(file, store, folder / "one", accelerator="cpu")
    one, two = (torch.load(checkpoints.latest(folder / name)) for name in ("one", "two"))
    return one["objective"], two["objective"]


def stored_volumes(store: Path) -> list[Path]:
    """The files of a store's volumes, while it is being written, too."""
    return [path for path in walk_files(store) if path.suffix == ".b2nd"]


def store_contents(store: Path) -> dict[str, bytes]:
    """The bytes of every file of a store, except its lock."""
    files = [path for path in sorted(store.rglob("*")) if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


def same(one: Any, other: Any) -> bool:
    """Whether two states are bit-equal."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def check_resumes_bit_equal(recipe: Recipe, store: Path, run: Path) -> None:
    """Train, take the last checkpoint away, resume, and compare the weights."""
    pretrain(recipe, store, run, accelerator="cpu")
    last = checkpoints.latest(run)
    whole = torch.load(last)
    last.unlink()
    pretrain(recipe, store, run, accelerator="cpu")
    for key, value in torch.load(last)["objective"].items():
        assert torch.equal(value, whole["objective"][key]), key
