"""`nnunet-fm pretrain doctor`: check that a run has everything it needs."""

import shutil
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nnunet_fm.internal.files import walk_files
from nnunet_fm.internal.findings import Finding
from nnunet_fm.internal.messages import counted, some

PACKAGES = (
    "lightly",
    "pytorch-lightning",
    "blosc2",
    "opencv-python-headless",
    "pydantic",
    "tensorboard",
)
MALICIOUS = ("2.6.2", "2.6.3")  # GHSA-w37p-236h-pfx3


def run_checks(store: Path | None, recipe: str | None) -> Iterator[Finding]:
    """Check packages and devices, the volumes of a store, and how a recipe fits them."""
    yield from _packages()
    yield _device()
    if store:
        yield from _store(store)
    if recipe:
        yield from _recipe(recipe, store)


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            installed = version(name)
        except PackageNotFoundError:
            yield Finding("fail", f"{name} is not installed", "pip install 'nnunet-fm[pretrain]'")
            continue
        if name == "pytorch-lightning" and installed in MALICIOUS:
            what = f"{name} {installed} carries malware"
            yield Finding("fail", what, "pip install 'pytorch-lightning>=2.6.4'")
        else:
            yield Finding("ok", f"{name} {installed}")


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("ok", f"{torch.cuda.device_count()} GPUs ({torch.cuda.get_device_name()})")
    return Finding(
        "warn",
        "no GPU: enough for the recipes called *_tiny_cpu",
        "run the larger recipes on a machine with a GPU",
    )


def _store(folder: Path) -> Iterator[Finding]:
    from nnunet_fm_pretrain.data.array_files import ENDING
    from nnunet_fm_pretrain.data.open_store import open_store

    try:
        store = open_store(folder)
    except (ValueError, OSError) as error:
        yield Finding("fail", f"store: {error}")
        return
    size = sum(p.stat().st_size for p in walk_files(folder) if p.suffix == ENDING) / 2**20
    free = shutil.disk_usage(folder).free >> 30
    volumes, subjects = len(store.records), len(store.subjects())
    what = f"{counted(volumes, 'volume')} of {counted(subjects, 'subject')}, {store.describe()}"
    yield Finding("ok", f"store {folder}: {what}, {size:.0f} MiB, {free} GB free")
    damaged = store.check()
    if damaged:
        fix = "rerun `nnunet-fm pretrain prepare`; it makes them again"
        yield Finding("fail", f"{counted(len(damaged), 'damaged volume')}: {some(damaged)}", fix)
    else:
        yield Finding("ok", "every volume has the manifest's checksum")


def _recipe(name: str, folder: Path | None) -> Iterator[Finding]:
    from nnunet_fm_pretrain.methods.recipes import read_recipe
    from nnunet_fm_pretrain.methods.registry import get_method

    try:
        recipe = read_recipe(name)
        method = get_method(recipe.objective.method)
        objective = method.build(recipe)
        parameters = sum(p.numel() for p in objective.parameters() if p.requires_grad)
        size = f"{parameters / 1e6:.1f} M trainable parameters"
        yield Finding("ok", f"recipe {name}: method {method.name}, {size}")
        if folder is None:
            return
        store = method.open_store(folder)
        yield from method.check(recipe, store)
        batches = objective.batches(store, 0, 1)
    except (ValueError, OSError) as error:
        yield Finding("fail", f"recipe {name}: {error}")
        return
    started = time.perf_counter()
    batches[0]
    speed = recipe.optimiser.batch_size / (time.perf_counter() - started)
    yield Finding("ok", f"one process makes {speed:.0f} samples/s")
