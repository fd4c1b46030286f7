"""Convert BraTS 2018-2024 folders to an nnU-Net raw dataset with the regions WT, TC and ET."""

import json
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from nnunet_fm.data.image_checks import find_problem
from nnunet_fm.data.sequences import BRATS_SINCE_2023, BRATS_UNTIL_2021, canonical_sequence
from nnunet_fm.internal.errors import ExistingFileError, InputError, MissingFileError
from nnunet_fm.internal.files import write_csv
from nnunet_fm.internal.messages import some

CHANNELS = ("T1", "T1c", "T2", "FLAIR")
SEGMENTATION = "seg"
SUFFIXES = (*BRATS_UNTIL_2021, *BRATS_SINCE_2023, SEGMENTATION)
OLD_SUFFIXES = ("t1ce", "flair", "t1gd")  # used until 2021 only
# Labels of BraTS 2023 and later; regions_class_order is the label written where a region is the
# innermost.
LABELS = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [1, 3], "enhancing tumor": [3]}
REGIONS_CLASS_ORDER = [2, 1, 3]
_FILE_NAME = re.compile(
    rf"^(?P<stem>.*?)[_-]?(?P<suffix>{'|'.join(SUFFIXES)})\.nii(\.gz)?$", re.IGNORECASE
)


@dataclass
class BratsCase:
    """Files of one BraTS case.

    Attributes:
        name: name of the case.
        files: file of each channel, and of the segmentation (`seg`).
        old_names: whether the files have the names used until 2021.
    """

    name: str
    files: dict[str, Path] = field(default_factory=dict)
    old_names: bool = False


@dataclass
class Conversion:
    """Result of a conversion.

    Attributes:
        folder: the nnU-Net raw dataset.
        training: names of the training cases.
        test: names of the cases without a segmentation.
        skipped: reason for each case that was skipped.
    """

    folder: Path
    training: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def find_cases(source: Path) -> list[BratsCase]:
    """Find every BraTS case below `source`, with the file names of any year.

    Raises:
        FileNotFoundError: there is no such folder, or nothing in it looks like BraTS.
    """
    if not source.is_dir():
        raise MissingFileError(f"{source} is not a folder; give the one that holds the BraTS cases")
    cases: dict[tuple[Path, str], BratsCase] = {}
    for path in sorted(source.rglob("*.nii*")):
        match = _FILE_NAME.match(path.name)
        if match is None:
            continue
        stem, suffix = match["stem"], match["suffix"].lower()
        case = cases.setdefault((path.parent, stem), BratsCase(stem or path.parent.name))
        case.files[canonical_sequence(suffix) or suffix] = path
        case.old_names |= suffix in OLD_SUFFIXES
    if not cases:
        raise MissingFileError(
            f"{source} holds no file such as CASE_t1ce.nii.gz (BraTS 2018-2021) "
            "or CASE-t1c.nii.gz (2023-2024)"
        )
    return sorted(cases.values(), key=lambda case: case.name)


def convert_brats(
    source: Path, raw: Path, dataset_id: int, name: str, copy: bool = False, workers: int = 2
) -> Conversion:
    """Write `DatasetXXX_NAME` below `raw`.

    Cases without a segmentation become test cases. Images are linked where the file system allows
    it. Labels {0, 1, 2, 4} (until 2021) are written as {0, 1, 2, 3}: 1 necrosis, 2 oedema, 3
    enhancing tumour.

    Args:
        source: folder with the cases, at any depth.
        raw: `nnUNet_raw`.
        dataset_id: 1 to 999.
        name: letters, digits, `_` and `-`.
        copy: copy the images instead of linking them.
        workers: number of threads that check and write.

    Raises:
        ValueError, FileExistsError, FileNotFoundError: impossible id or name, the dataset exists,
        or there is nothing to convert.
    """
    _check_dataset(raw, dataset_id, name)
    cases = find_cases(source)
    final = raw / f"Dataset{dataset_id:03d}_{name}"
    # moved into place when complete, so that an interrupted conversion leaves no dataset
    result = Conversion(raw / f".converting_{final.name}")
    shutil.rmtree(result.folder, ignore_errors=True)
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (result.folder / folder).mkdir(parents=True)
    unique = _skip_duplicates(cases, result)
    convert = partial(_convert_case, folder=result.folder, copy=copy)
    with ThreadPoolExecutor(workers) as pool:
        problems = tqdm(pool.map(convert, unique), total=len(unique), desc="converting")
        for case, problem in zip(unique, problems, strict=True):
            if problem:
                result.skipped[case.name] = problem
            elif SEGMENTATION in case.files:
                result.training.append(case.name)
            else:
                result.test.append(case.name)
    if not result.training and not result.test:
        shutil.rmtree(result.folder)
        reasons = some([f"{case}: {reason}" for case, reason in result.skipped.items()], 3)
        raise InputError(
            f"none of the {len(cases)} cases below {source} could be converted ({reasons})"
        )
    _write_description(result, final.name)
    result.folder.rename(final)
    result.folder = final
    return result


def _check_dataset(raw: Path, dataset_id: int, name: str) -> None:
    if not 1 <= dataset_id <= 999:
        raise InputError(f"dataset id {dataset_id}; allowed: 1 to 999")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise InputError(f"dataset name {name!r}; allowed: letters, digits, _ and -")
    existing = sorted(path.name for path in raw.glob(f"Dataset{dataset_id:03d}_*"))
    if existing:
        raise ExistingFileError(
            f"dataset {dataset_id} exists already ({some(existing)}); choose another id, "
            "or remove it"
        )


def _skip_duplicates(cases: Sequence[BratsCase], result: Conversion) -> list[BratsCase]:
    """Return the first case of each name; list the others as skipped."""
    unique: dict[str, BratsCase] = {}
    for case in cases:
        if case.name in unique:
            folder = next(iter(case.files.values())).parent
            result.skipped[f"{case.name} ({folder})"] = "a second case of this name"
        else:
            unique[case.name] = case
    return list(unique.values())


def _convert_case(case: BratsCase, folder: Path, copy: bool) -> str | None:
    """Check and write one case; return the reason if it cannot be used."""
    missing = [channel for channel in CHANNELS if channel not in case.files]
    if missing:
        return f"incomplete: no {', '.join(missing)}"
    segmentation = case.files.get(SEGMENTATION)
    labels = None
    try:
        problem = find_problem(case.files)
        if problem:
            return problem
        if segmentation is not None:
            labels = _standard_labels(sitk.ReadImage(str(segmentation)), case.old_names)
    except _UnknownLabelsError as error:
        return str(error)
    except RuntimeError as error:
        return f"unreadable: {str(error).strip().splitlines()[-1]}"
    images = folder / ("imagesTs" if labels is None else "imagesTr")
    for number, channel in enumerate(CHANNELS):
        _link_or_copy(case.files[channel], images / f"{case.name}_{number:04d}.nii.gz", copy)
    if labels is not None:
        target = folder / "labelsTr" / f"{case.name}.nii.gz"
        sitk.WriteImage(labels, str(target), useCompression=True)
    return None


class _UnknownLabelsError(Exception):
    """Labels of a convention that cannot be converted."""


def _standard_labels(segmentation: sitk.Image, old_names: bool) -> sitk.Image:
    """Return the labels as {0, 1, 2, 3}."""
    array = sitk.GetArrayFromImage(segmentation)
    values = {float(value) for value in np.unique(array)}
    if not values <= {0, 1, 2, 3, 4}:
        raise _UnknownLabelsError(f"labels {sorted(values)}; allowed: {{0,1,2,4}} or {{0,1,2,3}}")
    if 4 in values and (3 in values or not old_names):
        raise _UnknownLabelsError(
            "label 4 is the resection cavity of BraTS 2024 post-treatment; "
            "allowed: pre-treatment labels"
        )
    labels = array.astype(np.uint8)
    labels[labels == 4] = 3
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(segmentation)
    return image


def _link_or_copy(source: Path, target: Path, copy: bool) -> None:
    """Link where the name and the file system allow it; copy or compress otherwise."""
    if not source.name.endswith(".nii.gz"):
        sitk.WriteImage(sitk.ReadImage(str(source)), str(target), useCompression=True)
        return
    if not copy:
        try:
            target.symlink_to(source.resolve())
            return
        except OSError:
            pass  # a file system without links
    shutil.copyfile(source, target)


def _write_description(result: Conversion, name: str) -> None:
    description = {
        "channel_names": {str(number): channel for number, channel in enumerate(CHANNELS)},
        "labels": LABELS,
        "regions_class_order": REGIONS_CLASS_ORDER,
        "numTraining": len(result.training),
        "file_ending": ".nii.gz",
        "name": name,
    }
    (result.folder / "dataset.json").write_text(json.dumps(description, indent=2))
    rows = [{"case": case, "reason": reason} for case, reason in result.skipped.items()]
    if rows:
        write_csv(rows, result.folder / "skipped.csv")
