"""`nnunet-fm pretrain doctor`: is everything in place for a run, and if not, what to type."""

import shutil
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nnunet_fm.internal.findings import Finding
from nnunet_fm.internal.messages import some

PACKAGES = (
    "lightly",
    "pytorch-lightning",
    "blosc2",
    "opencv-python-headless",
    "pydantic",
    "tensorboard",
)
MALICIOUS = ("2.6.2", "2.6.3")  # GHSA-w37p-236h-pfx3


def examine(store: Path | None, recipe: str | None) -> Iterator[Finding]:
    """Look at packages and devices; at the volumes of `store`; at how `recipe` fits them."""
    yield from _packages()
    yield _device()
    if store:
        yield from _store(store)
    if recipe:
        yield from _recipe(recipe, store)


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            found = version(name)
        except PackageNotFoundError:
            yield Finding("fail", f"{name} is not installed", "pip install 'nnunet-fm[pretrain]'")
            continue
        if name == "pytorch-lightning" and found in MALICIOUS:
            yield Finding(
                "fail", f"{name} {found} carries malware", "pip install 'pytorch-lightning>=2.6.4'"
            )
        else:
            yield Finding("ok", f"{name} {found}")


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("ok", f"{torch.cuda.device_count()} GPUs ({torch.cuda.get_device_name()})")
    return Finding(
        "warn", "no GPU: enough for braindino_tiny_cpu", "run the larger recipes where there is one"
    )


def _store(folder: Path) -> Iterator[Finding]:
    from nnunet_fm_pretrain.data.slice_store import SliceStore

    try:
        store = SliceStore(folder)
    except (ValueError, OSError) as error:
        yield Finding("fail", f"store: {error}")
        return
    size = sum(p.stat().st_size for p in folder.rglob("*.b2nd")) / 2**20
    free = shutil.disk_usage(folder).free >> 30
    what = f"{len(store.records)} volumes of {len(store.subjects())} subjects, {len(store)} slices of {store.size} px"
    yield Finding("ok", f"store {folder}: {what}, {size:.0f} MiB, {free} GB free")
    damaged = list(store.damaged())
    if damaged:
        fix = "type the `nnunet-fm pretrain prepare` again; it makes them anew"
        yield Finding("fail", f"{len(damaged)} volumes are damaged: {some(damaged)}", fix)
    else:
        yield Finding("ok", "every volume has the manifest's checksum")


def _recipe(name: str, folder: Path | None) -> Iterator[Finding]:
    from nnunet_fm_pretrain.data.slice_store import SliceStore
    from nnunet_fm_pretrain.engine.recipe_files import read_recipe
    from nnunet_fm_pretrain.methods.registry import make_objective

    try:
        recipe = read_recipe(name)
        objective = make_objective(recipe)
        parameters = sum(p.numel() for p in objective.parameters() if p.requires_grad)
        yield Finding(
            "ok",
            f"recipe {name}: stage {recipe.stage}, {parameters / 1e6:.1f} M trainable parameters",
        )
        if folder is None:
            return
        store = SliceStore(folder)
        batches = objective.batches(store, 0, 1)
    except (ValueError, OSError) as error:
        yield Finding("fail", f"recipe {name}: {error}")
        return
    wanted = max(p.global_size for p in recipe.views.pairs)
    if (recipe.views.slice_size or store.size) < wanted:
        fix = f"prepare with --size {wanted} or more, or set views.slice_size={wanted}"
        yield Finding(
            "warn", f"global crops of {wanted} px are stretched from slices of {store.size} px", fix
        )
    started = time.perf_counter()
    batches[0]
    speed = recipe.optimiser.batch_size / (time.perf_counter() - started)
    yield Finding("ok", f"one process makes {speed:.0f} slices/s")
