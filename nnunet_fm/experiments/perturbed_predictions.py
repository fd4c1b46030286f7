"""A trained segmentation model on perturbed validation images (BrainDINO, section 4.4): perturb, predict, keep.

The raw images are perturbed and go through nnU-Net's preprocessing and our prediction, exactly as
new images do.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from batchgenerators.utilities.file_and_folder_operations import load_json

from nnunet_fm.data.perturbations import PAPER, VERSION, Perturbation
from nnunet_fm.data.volumes import Mask
from nnunet_fm.experiments.child_processes import run_logged
from nnunet_fm.experiments.runs import Run
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.files import TEMPORARY
from nnunet_fm.internal.messages import some
from nnunet_fm.nnunet.datasets import dataset_id
from nnunet_fm.nnunet.raw_images import raw_images

FOLDER, CLEAN, MADE_OF = "perturbed", "none", "made_of.json"


def paper_perturbations() -> list[Perturbation]:
    """Every severity of the paper that changes something."""
    asked = [
        Perturbation(family, severity)
        for family, severities in PAPER.items()
        for severity in severities
    ]
    return [p for p in asked if not p.is_identity]


def perturbed_folder(run: Run, perturbation: Perturbation | None) -> Path:
    """Where the predictions are; those of the clean images, predicted in the same way, for None."""
    name = CLEAN if perturbation is None else f"{perturbation.family}_{perturbation.severity:g}"
    return run.folder / FOLDER / name


def finished_perturbations(run: Run) -> list[Perturbation]:
    """Those that were predicted to the end."""
    names = [
        p.name for p in (run.folder / FOLDER).glob("*_*") if p.is_dir() and p.suffix != TEMPORARY
    ]
    found = [Perturbation.parse(name.replace("_", "=", 1)) for name in names]
    return sorted(found, key=lambda p: (p.family, p.severity))


def predict_perturbed(
    run: Run,
    perturbation: Perturbation | None,
    cases: Sequence[str],
    raw: Path,
    device: str = "cuda",
    brains: Path | None = None,
) -> Path:
    """Predict a run's cases under one perturbation, unless that was done before.

    Args:
        run: finished.
        perturbation: of the raw images; None for the clean ones.
        cases: names.
        raw: nnUNet_raw.
        device: `cuda`, `cpu` or `mps`.
        brains: folder with a brain mask `CASE<ending>` for each case; every voxel that is not 0 in
            all channels is brain if None.

    Returns:
        Folder of predictions; it is there as a whole or not at all.

    Raises:
        ValueError: the folder is there with predictions of other cases or brain masks.
        FileNotFoundError: no raw images, or no mask.
        RuntimeError: the prediction failed; the end of its log is told.
    """
    done = perturbed_folder(run, perturbation)
    masks = str(brains.absolute()) if brains and perturbation else "not 0"
    made_of = {"cases": sorted(cases), "brain": masks, "version": VERSION}
    if done.is_dir():
        _check_made_of(done, made_of)
        return done
    images = raw_images(run.dataset, cases, raw)
    ending = str(load_json(str(run.folder.parent / "dataset.json"))["file_ending"])
    making = done.with_name(f"{done.name}{TEMPORARY}")
    shutil.rmtree(making, ignore_errors=True)  # of a killed one
    (making / "images").mkdir(parents=True)
    for case in cases:
        write_perturbed(case, images[case], perturbation, making / "images", ending, brains)
    _predict(run, making, device)
    shutil.rmtree(making / "images")
    (making / MADE_OF).write_text(json.dumps(made_of))
    making.rename(done)
    return done


def _check_made_of(done: Path, wanted: dict[str, Any]) -> None:
    record = done / MADE_OF
    former = json.loads(record.read_text()) if record.is_file() else {}
    if different := [key for key in wanted if former.get(key) != wanted[key]]:
        was, now = (some([str(facts.get(key)) for key in different]) for facts in (former, wanted))
        raise InputError(
            f"{done} was predicted with another {some(different)} ({was}; now {now}); delete that folder, or ask "
            "for the same"
        )


def write_perturbed(
    case: str,
    images: Sequence[Path],
    perturbation: Perturbation | None,
    out: Path,
    ending: str,
    brains: Path | None = None,
) -> None:
    """Write the channels of a case as `CASE_0000<ending>`, perturbed inside the clean brain mask.

    All channels get one bias field, that of the first one's voxels; without a perturbation the
    files are linked.
    """
    if perturbation is None or perturbation.is_identity:
        for n, file in enumerate(images):
            os.symlink(file.absolute(), out / f"{case}_{n:04d}{ending}")
        return
    read = [sitk.ReadImage(str(file)) for file in images]
    channels = [sitk.GetArrayFromImage(image).astype(np.float32) for image in read]
    brain = _brain(case, channels, brains, ending)
    for n, (image, channel) in enumerate(zip(read, channels, strict=True)):
        changed = sitk.GetImageFromArray(perturbation(channel, brain, channels[0]))
        changed.CopyInformation(image)
        sitk.WriteImage(changed, str(out / f"{case}_{n:04d}{ending}"))


def _brain(case: str, channels: Sequence[np.ndarray], brains: Path | None, ending: str) -> Mask:
    inside: Mask = np.any([channel != 0 for channel in channels], axis=0)
    if brains is not None:
        file = brains / f"{case}{ending}"
        if not file.is_file():
            raise MissingFileError(
                f"{file} does not exist; --brain needs a mask CASE{ending} for every case"
            )
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(file))) != 0
        if mask.shape != inside.shape:
            raise InputError(
                f"{file} has shape {mask.shape}, the images have {inside.shape}; allowed: the same"
            )
        inside &= mask
    if not inside.any():
        raise InputError(f"{case}: nothing but zeros inside the brain mask")
    return inside


def _predict(run: Run, folder: Path, device: str) -> None:
    """Our prediction in a process of its own, from `images` beside the result."""
    words = [
        "nnunet-fm",
        "predict",
        "-d",
        str(dataset_id(run.dataset)),
        "-c",
        run.configuration,
        "-f",
        str(run.fold),
    ]
    words += ["-tr", run.trainer, "-p", run.plans, "-device", device, "--disable_progress_bar"]
    words += ["-i", str(folder / "images"), "-o", str(folder), "-npp", "1", "-nps", "1"]
    run_logged(words, run.folder / FOLDER / "prediction.log")
