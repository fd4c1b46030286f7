"""Predict perturbed validation images with trained segmentation models.

The raw images are perturbed and pass through nnU-Net's preprocessing and our prediction, exactly as
new images do. Source: BrainDINO, section 4.4.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float
from tqdm import tqdm

from nnunet_fm.data.grids import Grid, read_on_grid
from nnunet_fm.data.image_checks import find_problem
from nnunet_fm.data.image_files import write_compressed
from nnunet_fm.data.image_size import UnreadableImageError
from nnunet_fm.data.perturbations import PAPER, VERSION, Perturbation
from nnunet_fm.data.volumes import Mask
from nnunet_fm.experiments.child_processes import run_logged
from nnunet_fm.experiments.run_scores import Problems, ScoredRun
from nnunet_fm.experiments.runs import Run, State
from nnunet_fm.internal.atomic_files import created_whole
from nnunet_fm.internal.device import missing_device
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.json_files import read_object
from nnunet_fm.internal.messages import some
from nnunet_fm.nnunet.dataset_files import read_dataset_json
from nnunet_fm.nnunet.datasets import dataset_id
from nnunet_fm.nnunet.file_names import DATASET_JSON
from nnunet_fm.nnunet.raw_images import raw_images

FOLDER, CLEAN, RECORD = "perturbed", "none", "made_of.json"
NIFTI = (".nii", ".nii.gz")
LEFT_OUT = "left_out"  # key of the record: why cases are not predicted


def paper_perturbations() -> list[Perturbation]:
    """Return every perturbation of the paper that changes something."""
    perturbations = [
        Perturbation(family, severity)
        for family, severities in PAPER.items()
        for severity in severities
    ]
    return [perturbation for perturbation in perturbations if not perturbation.is_identity]


def select_finished_runs(
    runs: Sequence[Run],
    encoders: Sequence[str] = (),
    ratio: float | None = None,
    seeds: Sequence[int] = (),
) -> list[Run]:
    """Select the finished runs of one ratio.

    Args:
        runs: any runs.
        encoders: names of the encoders; all if empty.
        ratio: share of the training cases; the largest of the finished runs if None.
        seeds: seeds of the subsets; all if empty.

    Raises:
        ValueError: no finished run matches; the message lists the finished ones.
    """
    finished = [run for run in runs if run.state() is State.FINISHED]
    if ratio is None:
        ratio = max((run.ratio for run in finished), default=1.0)
    selected = [
        run
        for run in finished
        if run.ratio == ratio
        and (not encoders or run.encoder in encoders)
        and (not seeds or run.seed in seeds)
    ]
    if not selected:
        known = sorted({f"{run.encoder} at {run.ratio:g}, seed {run.seed}" for run in finished})
        raise InputError(f"no finished run matches; there are: {some(known, 12) or 'none'}")
    return selected


def predict_runs(
    scored: Sequence[ScoredRun],
    perturbations: Sequence[Perturbation],
    raw: Path,
    device: str = "cuda",
    brain_masks: Path | None = None,
    problems: Problems | None = None,
) -> None:
    """Predict the validation cases of runs, clean and under each perturbation.

    Args:
        scored: finished runs.
        perturbations: perturbations of the raw images; those that change nothing are skipped.
        raw: nnUNet_raw.
        device: `cuda`, `cpu` or `mps`.
        brain_masks: see `predict_perturbed`.
        problems: see `predict_perturbed`.

    Raises:
        ValueError, FileNotFoundError, RuntimeError: see `predict_perturbed`.
    """
    changes = [None, *(p for p in perturbations if not p.is_identity)]
    jobs = [(one, change) for one in scored for change in changes]
    for one, change in tqdm(jobs, desc="perturbed"):
        predict_perturbed(one.run, change, one.cases, raw, device, brain_masks, problems)


def perturbed_folder(run: Run, perturbation: Perturbation | None) -> Path:
    """Return the folder of predictions; None is for clean images, predicted in the same way."""
    if perturbation is None:
        return run.folder / FOLDER / CLEAN
    return run.folder / FOLDER / f"{perturbation.family}_{perturbation.severity:g}"


def finished_perturbations(run: Run) -> list[Perturbation]:
    """List the perturbations whose predictions are complete."""
    folders = [path for path in (run.folder / FOLDER).glob("*_*") if path.is_dir()]
    names = [path.name for path in folders if path.suffix != ".tmp"]  # of version 0.1
    perturbations = [Perturbation.parse(name.replace("_", "=", 1)) for name in names]
    return sorted(perturbations, key=lambda p: (p.family, p.severity))


def predict_perturbed(
    run: Run,
    perturbation: Perturbation | None,
    cases: Sequence[str],
    raw: Path,
    device: str = "cuda",
    brain_masks: Path | None = None,
    problems: Problems | None = None,
) -> Path:
    """Predict a run's cases under one perturbation; complete predictions are kept.

    Args:
        run: a finished run.
        perturbation: perturbation of the raw images; None for the clean images.
        cases: names of the cases.
        raw: nnUNet_raw.
        device: `cuda`, `cpu` or `mps`.
        brain_masks: folder with a brain mask `CASE<ending>` for each case; if None, brain is every
            voxel that is not 0 in all channels.
        problems: receives the cases whose images or mask cannot be used; the others are predicted.
            If None, the first one is an error.

    Returns:
        Folder of predictions; it exists only once it is complete.

    Raises:
        ValueError: the folder holds predictions of other cases or other brain masks, or this
            machine has no such device.
        FileNotFoundError: a raw image or a mask is missing.
        RuntimeError: the prediction failed; the message holds the end of its log.
    """
    target = perturbed_folder(run, perturbation)
    masks = "not 0"
    if brain_masks and perturbation:
        masks = str(brain_masks.absolute())
    record = {"cases": sorted(cases), "brain": masks, "version": VERSION}
    if target.is_dir():
        _check_record(target, record)
        _add_left_out(run, target, problems)
        return target
    missing = missing_device(device)
    if missing:
        raise InputError(f"-device {device}: this machine has {missing}; type -device cpu")
    images = raw_images(run.dataset, cases, raw)
    ending = str(read_dataset_json(run.folder.parent / DATASET_JSON, "file_ending")["file_ending"])
    with created_whole(target) as partial:
        left_out = _write_usable(images, perturbation, partial / "images", ending, brain_masks)
        if left_out and (problems is None or len(left_out) == len(cases)):
            raise InputError(f"{run.name}: {next(iter(left_out.values()))}")
        _predict(run, partial, device)
        shutil.rmtree(partial / "images")
        record[LEFT_OUT] = left_out
        (partial / RECORD).write_text(json.dumps(record), encoding="utf-8")
    _add_left_out(run, target, problems)
    return target


def _add_left_out(run: Run, folder: Path, problems: Problems | None) -> None:
    if problems is not None:
        problems |= {(run.dataset, case): why for case, why in left_out_of(folder).items()}


def _write_usable(
    images: dict[str, list[Path]],
    perturbation: Perturbation | None,
    out: Path,
    ending: str,
    brain_masks: Path | None,
) -> dict[str, str]:
    """Write the cases that can be used, see `write_perturbed`; return why the others cannot."""
    out.mkdir()
    left_out = {}
    for case, files in images.items():
        try:
            write_perturbed(case, files, perturbation, out, ending, brain_masks)
        except InputError as error:
            left_out[case] = str(error)
    return left_out


def left_out_of(folder: Path) -> dict[str, str]:
    """Read which cases a folder of predictions lacks, why, and what to do."""
    path = folder / RECORD
    left_out = read_object(path).get(LEFT_OUT, {}) if path.is_file() else {}
    remedy = f"to predict it once it is repaired, delete {folder}"
    return {case: f"{reason}; {remedy}" for case, reason in left_out.items()}


def _check_record(folder: Path, record: dict[str, Any]) -> None:
    """Refuse a folder of predictions that was made from something else."""
    path = folder / RECORD
    former = read_object(path) if path.is_file() else {}
    different = [key for key in record if former.get(key) != record[key]]
    if "cases" in different and set(record["cases"]) <= set(former.get("cases", [])):
        different.remove("cases")  # the others are left out of this comparison
    if different:
        before = some([str(former.get(key)) for key in different])
        now = some([str(record[key]) for key in different])
        raise InputError(
            f"{folder} was predicted with another {some(different)} ({before}; now {now}); delete "
            "that folder, or give the same"
        )


def write_perturbed(
    case: str,
    images: Sequence[Path],
    perturbation: Perturbation | None,
    out: Path,
    ending: str,
    brain_masks: Path | None = None,
) -> None:
    """Write the channels of a case as `CASE_0000<ending>`, perturbed inside the clean brain mask.

    All channels get one bias field, drawn for the voxels of the first. Without a perturbation, the
    files are linked.

    Args:
        case: name of the case.
        images: file of each channel.
        perturbation: the perturbation, or None.
        out: folder to write to.
        ending: ending of nnU-Net's files, e.g. `.nii.gz`.
        brain_masks: see `predict_perturbed`.

    Raises:
        ValueError: images or a brain mask that cannot be read or lie elsewhere than the first
            channel, or an empty brain mask.
        FileNotFoundError: no mask for the case.
    """
    if ending in NIFTI:
        problem = find_problem({f"{n:04d}": file for n, file in enumerate(images)})
        if problem:
            raise UnreadableImageError(f"{case}: {problem}")
    targets = [out / f"{case}_{n:04d}{ending}" for n in range(len(images))]
    if perturbation is None or perturbation.is_identity:
        for file, target in zip(images, targets, strict=True):
            os.symlink(file.absolute(), target)
        return
    first = sitk.ReadImage(str(images[0]))
    grid = Grid.of_image(first)
    channels = [read_on_grid(file, grid).astype(np.float32) for file in images]
    brain = _brain_mask(case, channels, grid, brain_masks, ending)
    for channel, target in zip(channels, targets, strict=True):
        changed = sitk.GetImageFromArray(perturbation(channel, brain, channels[0]))
        changed.CopyInformation(first)
        write_compressed(changed, target)


def _brain_mask(
    case: str,
    channels: Sequence[Float[np.ndarray, "z y x"]],
    grid: Grid,
    brain_masks: Path | None,
    ending: str,
) -> Mask:
    """Return the voxels that are not 0 in all channels, within the given mask if there is one."""
    inside: Mask = np.any([channel != 0 for channel in channels], axis=0)
    if brain_masks is not None:
        file = brain_masks / f"{case}{ending}"
        if not file.is_file():
            raise MissingFileError(
                f"{file} does not exist; --brain-masks needs a mask CASE{ending} for every case"
            )
        inside &= read_on_grid(file, grid) != 0
    if not inside.any():
        raise InputError(f"{case}: nothing but zeros inside the brain mask")
    return inside


def _predict(run: Run, folder: Path, device: str) -> None:
    """Predict `images` in the folder in a process of its own."""
    argv = ["nnunet-fm", "predict", "-d", str(dataset_id(run.dataset)), "-c", run.configuration]
    argv += ["-f", str(run.fold), "-tr", run.trainer, "-p", run.plans, "-device", device]
    argv += ["-i", str(folder / "images"), "-o", str(folder), "-npp", "1", "-nps", "1"]
    run_logged([*argv, "--disable_progress_bar"], run.folder / FOLDER / "prediction.log")
