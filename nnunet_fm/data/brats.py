"""BraTS 2018-2024 folders to an nnU-Net raw dataset with the regions WT, TC and ET."""

import json
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from nnunet_fm.data.image_checks import case_problem
from nnunet_fm.data.sequences import BRATS_SINCE_2023, BRATS_UNTIL_2021, SEQUENCE_OF
from nnunet_fm.internal.errors import ExistingFileError, InputError, MissingFileError
from nnunet_fm.internal.messages import some

CHANNELS = ("T1", "T1c", "T2", "FLAIR")
SUFFIXES = {word: SEQUENCE_OF[word] for word in BRATS_UNTIL_2021 + BRATS_SINCE_2023}
OLD_NAMES = ("t1ce", "flair", "t1gd")
# Labels of BraTS 2023 and later; regions_class_order is the label written where a region is the
# innermost.
LABELS = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [1, 3], "enhancing tumor": [3]}
REGIONS_CLASS_ORDER = [2, 1, 3]
_FILE = re.compile(
    rf"^(?P<stem>.*?)[_-]?(?P<suffix>{'|'.join(SUFFIXES)}|seg)\.nii(\.gz)?$", re.IGNORECASE
)


@dataclass
class Case:
    """Files of one BraTS case, by channel name, and whether they carry the names used until 2021."""

    name: str
    files: dict[str, Path] = field(default_factory=dict)
    old_names: bool = False


@dataclass
class Conversion:
    """What a conversion made: training and test cases, and the cases left out with the reason."""

    folder: Path
    training: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def find_cases(source: Path) -> list[Case]:
    """Every BraTS case below `source`, whatever the year's file names.

    Raises:
        FileNotFoundError: no folder, or nothing in it that looks like BraTS.
    """
    if not source.is_dir():
        raise MissingFileError(f"{source} is no folder; give the one that holds the BraTS cases")
    cases: dict[tuple[Path, str], Case] = {}
    for path in sorted(source.rglob("*.nii*")):
        match = _FILE.match(path.name)
        if match is None:
            continue
        stem, suffix = match["stem"], match["suffix"].lower()
        case = cases.setdefault((path.parent, stem), Case(stem or path.parent.name))
        case.files[SUFFIXES.get(suffix, suffix)] = path
        case.old_names |= suffix in OLD_NAMES
    if not cases:
        raise MissingFileError(
            f"{source} holds no file such as CASE_t1ce.nii.gz (BraTS 2018-2021) or CASE-t1c.nii.gz (2023-2024)"
        )
    return sorted(cases.values(), key=lambda c: c.name)


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
        workers: threads that check and write.

    Raises:
        ValueError, FileExistsError, FileNotFoundError: impossible id or name, dataset exists,
        nothing to convert.
    """
    if not 1 <= dataset_id <= 999:
        raise InputError(f"dataset id {dataset_id}; allowed: 1 to 999")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise InputError(f"dataset name {name!r}; allowed: letters, digits, _ and -")
    taken = sorted(p.name for p in raw.glob(f"Dataset{dataset_id:03d}_*")) if raw.is_dir() else []
    if taken:
        raise ExistingFileError(
            f"dataset {dataset_id} exists already ({some(taken)}); choose another id, or remove it"
        )
    cases = find_cases(source)
    final = raw / f"Dataset{dataset_id:03d}_{name}"
    result = Conversion(
        raw / f".converting_{final.name}"
    )  # moved into place when done: no half dataset is left
    shutil.rmtree(result.folder, ignore_errors=True)
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (result.folder / folder).mkdir(parents=True)
    seen: set[str] = set()
    for case in cases:
        if case.name in seen:
            result.skipped[f"{case.name} ({next(iter(case.files.values())).parent})"] = (
                "a second case of this name"
            )
        seen.add(case.name)
    unique = [next(c for c in cases if c.name == name) for name in sorted(seen)]
    with ThreadPoolExecutor(workers) as pool:
        problems = pool.map(lambda c: _convert_case(c, result.folder, copy), unique)
        for case, problem in tqdm(
            zip(unique, problems, strict=True), total=len(unique), desc="converting"
        ):
            if problem:
                result.skipped[case.name] = problem
            else:
                (result.training if "seg" in case.files else result.test).append(case.name)
    if not result.training and not result.test:
        shutil.rmtree(result.folder)
        reasons = some([f"{k}: {v}" for k, v in result.skipped.items()], 3)
        raise InputError(
            f"none of the {len(cases)} cases below {source} could be converted ({reasons})"
        )
    _write_description(result, final.name)
    result.folder.rename(final)
    result.folder = final
    return result


def _convert_case(case: Case, folder: Path, copy: bool) -> str | None:
    """Check and write one case; the reason if it cannot be used."""
    missing = [c for c in CHANNELS if c not in case.files]
    if missing:
        return f"incomplete: no {', '.join(missing)}"
    try:
        problem = case_problem(case.files)
        if problem:
            return problem
        has_labels = "seg" in case.files
        labels = (
            _standard_labels(sitk.ReadImage(str(case.files["seg"])), case.old_names)
            if has_labels
            else None
        )
    except RuntimeError as error:
        return f"unreadable: {str(error).strip().splitlines()[-1]}"
    if isinstance(labels, str):
        return labels
    where = folder / ("imagesTr" if "seg" in case.files else "imagesTs")
    for number, channel in enumerate(CHANNELS):
        _place(case.files[channel], where / f"{case.name}_{number:04d}.nii.gz", copy)
    if labels is not None:
        sitk.WriteImage(
            labels, str(folder / "labelsTr" / f"{case.name}.nii.gz"), useCompression=True
        )
    return None


def _standard_labels(segmentation: sitk.Image, old_names: bool) -> sitk.Image | str:
    """The labels as {0, 1, 2, 3}, or why they cannot be."""
    array = sitk.GetArrayFromImage(segmentation)
    values = {float(v) for v in np.unique(array)}
    if not values <= {0, 1, 2, 3, 4}:
        return f"labels {sorted(values)}; allowed: {{0,1,2,4}} or {{0,1,2,3}}"
    if 4 in values and (3 in values or not old_names):
        return "label 4 is the resection cavity of BraTS 2024 post-treatment; only pre-treatment labels are known here"
    labels = array.astype(np.uint8)
    labels[labels == 4] = 3
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(segmentation)
    return image


def _place(source: Path, target: Path, copy: bool) -> None:
    """Link where names and file system allow it; copy or compress otherwise."""
    if not source.name.endswith(".nii.gz"):
        sitk.WriteImage(sitk.ReadImage(str(source)), str(target), useCompression=True)
    elif copy:
        shutil.copyfile(source, target)
    else:
        try:
            target.symlink_to(source.resolve())
        except OSError:
            shutil.copyfile(source, target)


def _write_description(result: Conversion, name: str) -> None:
    description = {
        "channel_names": {str(i): c for i, c in enumerate(CHANNELS)},
        "labels": LABELS,
        "regions_class_order": REGIONS_CLASS_ORDER,
        "numTraining": len(result.training),
        "file_ending": ".nii.gz",
        "name": name,
    }
    (result.folder / "dataset.json").write_text(json.dumps(description, indent=2))
    lines: Iterable[str] = (f"{case},{reason}" for case, reason in result.skipped.items())
    if result.skipped:
        (result.folder / "skipped.csv").write_text("\n".join(["case,reason", *lines]) + "\n")
