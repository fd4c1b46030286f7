"""`nnunet-fm doctor`: check the installation and print what to type where something is wrong."""

import os
import shutil
from collections.abc import Iterator
from importlib.metadata import requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from nnunet_fm.cli.parser import Commands
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.findings import Finding, print_findings
from nnunet_fm.internal.folders import EXT_TRAINER, folder
from nnunet_fm.nnunet.datasets import FOLDERS

if TYPE_CHECKING:
    from nnunet_fm.encoders import EncoderSource

WORKERS = ("nnUNet_n_proc_DA", "nnUNet_def_n_proc")  # numbers of processes
CHECKED_PACKAGES = ("nnunetv2", "timm", "torch")
ENOUGH_DISK = 10 << 30  # bytes


def add_command(commands: Commands) -> None:
    """Add `nnunet-fm doctor`."""
    doctor = commands.add_parser(
        "doctor", help="check versions, folders, device, encoder files; print the fixes"
    )
    doctor.set_defaults(function=lambda _: print_findings(run_checks()))


def run_checks() -> Iterator[Finding]:
    """Check versions, device, nnU-Net's folders and processes, trainers, disk, encoder files."""
    for name in CHECKED_PACKAGES:
        yield _check_version(name)
    yield _check_device()
    for name in FOLDERS:
        yield _check_folder(name)
    for name in WORKERS:
        if name in os.environ:
            yield _check_workers(name)
    yield _check_trainers()
    yield from _check_encoders()


def _check_version(package: str) -> Finding:
    """Compare an installed package with what this package's metadata requires."""
    installed = version(package)
    for requirement in map(Requirement, requires("nnunet-fm") or ()):
        if requirement.name == package and not requirement.specifier.contains(
            installed, prereleases=True
        ):
            return Finding(
                "fail",
                f"{package} {installed} is outside {package}{requirement.specifier}",
                f"pip install '{package}{requirement.specifier}'",
            )
    return Finding("ok", f"{package} {installed}")


def _check_device() -> Finding:
    import torch

    from nnunet_fm.internal.device import best_precision, default_device

    device = torch.device(default_device())
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


def _check_folder(name: str) -> Finding:
    value = os.environ.get(name)
    if not value:
        return Finding("fail", f"{name} is not set", f"export {name}=/path/to/{name}")
    if not Path(value).is_dir():
        return Finding("fail", f"{name}={value} does not exist", f"mkdir -p '{value}'")
    if not os.access(value, os.W_OK):
        return Finding(
            "fail",
            f"{name}={value} is not writable",
            f"chmod u+w '{value}', or choose another folder",
        )
    free = shutil.disk_usage(value).free
    what = f"{name}={value}, {free >> 30} GB free"
    if free <= ENOUGH_DISK:
        fix = f"free disk space below {value}: a training needs about 10 GB"
        return Finding("warn", what, fix)
    return Finding("ok", what)


def _check_workers(name: str) -> Finding:
    """Check a number of processes: nnU-Net's planner sets as many threads, and stops at 0."""
    value = os.environ[name]
    if value.isdecimal() and int(value) > 0:
        return Finding("ok", f"{name}={value}")
    return Finding(
        "fail",
        f"{name}={value!r} is not a whole number above 0: nnU-Net's planning and preprocessing "
        "stop with it",
        f"export {name}=1, or unset {name}",
    )


def _check_trainers() -> Finding:
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
        f'export {EXT_TRAINER}="$(nnunet-fm trainers-path)"',
    )


def _check_encoders() -> Iterator[Finding]:
    """Load every encoder file that plans in nnUNet_preprocessed name."""
    from nnunet_fm.nnunet.dataset_files import read_plans
    from nnunet_fm.nnunet.encoder_in_plans import encoder_source

    root = os.environ.get("nnUNet_preprocessed")
    for path in sorted(Path(root).glob("Dataset*/FM_*.json")) if root else []:
        try:
            plans = read_plans(path)
        except InputError as error:
            yield Finding("fail", str(error), "restore it, or rerun nnunet-fm plan")
            continue
        for name in plans["configurations"]:
            source = encoder_source(plans, name)
            if source is not None and source.file is not None:
                yield _check_encoder(f"{path.parent.name}/{path.name} {name}", source)


def _check_encoder(where: str, source: "EncoderSource") -> Finding:
    """Load an encoder file and compare it with the hash in the plans.

    Args:
        where: plans and configuration, for the message.
        source: as the plans name it.
    """
    what = f"{where}: encoder file {source.file}"
    try:
        source.load()
    except (ValueError, OSError) as error:
        fix = "restore it, or rerun nnunet-fm plan with its new path"
        return Finding("fail", f"{what}: {error}", fix)
    return Finding("ok", f"{what}, tensor hash {source.sha256[:12]}")
