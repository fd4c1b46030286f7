"""`nnunet-fm doctor`: is everything in place, and if not, what to type."""

import json
import os
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from nnunet_fm.internal.findings import Finding
from nnunet_fm.internal.folders import EXT_TRAINER, folder

NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
ENOUGH_DISK = 10 << 30


def examine() -> Iterator[Finding]:
    """Look at versions, device, nnU-Net's folders, the trainers' folder, free disk and encoder files."""
    yield from _versions()
    yield _device()
    yield from _folders()
    yield _trainers()
    yield from _encoders()


def _versions() -> Iterator[Finding]:
    for name, least, below in (
        ("nnunetv2", (2, 8), (3,)),
        ("timm", (1, 0, 20), (1, 0, 23)),
        ("torch", (2, 5), (3,)),
    ):
        found = version(name)
        parts = tuple(
            int("".join(c for c in p if c.isdigit()) or 0)
            for p in found.split("+")[0].split(".")[:3]
        )
        if least <= parts < below:
            yield Finding("ok", f"{name} {found}")
        else:
            span = f"{name}>={'.'.join(map(str, least))},<{'.'.join(map(str, below))}"
            yield Finding("fail", f"{name} {found} is outside {span}", f"pip install '{span}'")


def _device() -> Finding:
    import torch

    from nnunet_fm.internal.device import best_precision

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    precision, reason = best_precision(device)
    what = f"device {device.type} ({name}), precision {precision} ({reason})"
    if device.type == "cpu":
        return Finding(
            "warn",
            f"{what}: fine for small encoders",
            "add -device cpu to nnUNetv2_train and predict",
        )
    return Finding("ok", what)


def _folders() -> Iterator[Finding]:
    for name in NNUNET_FOLDERS:
        value = os.environ.get(name)
        if not value:
            yield Finding("fail", f"{name} is not set", f"export {name}=/path/to/{name}")
        elif not Path(value).is_dir():
            yield Finding("fail", f"{name}={value} does not exist", f"mkdir -p '{value}'")
        elif not os.access(value, os.W_OK):
            yield Finding(
                "fail",
                f"{name}={value} is not writable",
                f"chmod u+w '{value}', or choose another folder",
            )
        else:
            free = shutil.disk_usage(value).free
            level = "ok" if free > ENOUGH_DISK else "warn"
            fix = (
                ""
                if level == "ok"
                else f"free disk space below {value}: a training needs about 10 GB"
            )
            yield Finding(level, f"{name}={value}, {free >> 30} GB free", fix)


def _trainers() -> Finding:
    ours = folder("trainers")
    if not (ours / "nnunet_fm_trainers.py").is_file():
        return Finding(
            "fail", f"{ours} holds no trainers", "pip install --force-reinstall nnunet-fm"
        )
    if str(ours) in os.environ.get(EXT_TRAINER, "").split(os.pathsep):
        return Finding("ok", f"{EXT_TRAINER} names {ours}")
    return Finding(
        "fail",
        f"{EXT_TRAINER} does not name {ours}: nnU-Net will not find the trainers",
        f'export {EXT_TRAINER}="$(nnunet-fm path)"',
    )


def _encoders() -> Iterator[Finding]:
    """Every encoder file named by plans in nnUNet_preprocessed, loaded and compared with the plans' hash."""
    from nnunet_fm.encoders.loading.weight_source import load_source

    root = os.environ.get("nnUNet_preprocessed", "")
    for plans in sorted(Path(root).glob("Dataset*/FM_*.json")) if root else ():
        for name, configuration in json.loads(plans.read_text())["configurations"].items():
            source = (
                configuration.get("architecture", {}).get("arch_kwargs", {}).get("encoder_source")
                or {}
            )
            if "file" not in source:
                continue
            here = f"{plans.parent.name}/{plans.name} {name}: encoder file {source['file']}"
            try:
                arguments = configuration["architecture"]["arch_kwargs"]
                load_source(source, arguments["encoder"], arguments["encoder_options"])
                yield Finding("ok", f"{here}, tensor hash {source['sha256'][:12]}")
            except (ValueError, OSError) as error:
                yield Finding(
                    "fail",
                    f"{here}: {error}",
                    "put it back, or type nnunet-fm plan with its new path",
                )
