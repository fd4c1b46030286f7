"""Convert BraTS 2018-2025 folders to an nnU-Net raw dataset with the regions of the challenge."""

import json
import re
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from nnunet_fm.data.brats_cases import SEGMENTATION, BratsCase, FileNames, find_cases
from nnunet_fm.data.brats_checks import CheckedCase, check_case
from nnunet_fm.data.choose_scheme import SchemeChoice, choose_scheme
from nnunet_fm.data.image_files import write_compressed
from nnunet_fm.data.label_schemes import SCHEME_KEY, BratsScheme
from nnunet_fm.internal.atomic_files import (
    created_whole,
    remove_leftovers,
    write_csv,
    write_text,
)
from nnunet_fm.internal.errors import ExistingFileError, InputError, MissingFileError
from nnunet_fm.internal.messages import some

REORIENT = '"overwrite_image_reader_writer": "NibabelIOWithReorient"'


@dataclass
class Conversion:
    """Result of a conversion.

    Attributes:
        folder: the nnU-Net raw dataset.
        scheme: what the labels mean, and how that was found; one line.
        training: names of the training cases.
        test: names of the cases without a segmentation.
        skipped: reason for each case that was skipped.
        unused: names of the files that lie with a case but are none of its channels.
        orientations: cases by the orientation of their images, e.g. `LPS`.
    """

    folder: Path
    scheme: str = ""
    training: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    orientations: dict[str, list[str]] = field(default_factory=dict)

    @property
    def left_out(self) -> bool:
        """Whether a case or a file was left out."""
        return bool(self.skipped or self.unused)

    def warnings(self) -> list[str]:
        """Return what was left out or needs a look, one line each."""
        lines = [f"skipped {case}: {reason}" for case, reason in self.skipped.items()]
        for case, files in self.unused.items():
            if case in self.test:
                lines.append(
                    f"{case} has no segmentation and is a test case; not used: {files}. If one of "
                    "them is the segmentation, convert again with --segmentation and its name; "
                    "* stands for the name of the case, as in '*_Segm.nii'"
                )
            else:
                lines.append(f"{case}: not used: {files}")
        if self.training and self.test:
            total = len(self.training) + len(self.test)
            lines.append(
                f"{len(self.test)} of {total} cases have no segmentation and are test cases: "
                f"{some(self.test)}"
            )
        if len(self.orientations) > 1:
            groups = sorted(self.orientations.items(), key=lambda item: -len(item[1]))
            counts = ", ".join(f"{len(cases)} {code} ({some(cases, 2)})" for code, cases in groups)
            lines.append(
                f"the images lie in several orientations: {counts}. nnU-Net's usual reader does "
                f"not turn them; add {REORIENT} to dataset.json before it preprocesses"
            )
        return lines


def convert_brats(
    source: Path,
    raw: Path,
    dataset_id: int,
    name: str,
    copy: bool = False,
    workers: int = 2,
    scheme: str | None = None,
    names: FileNames | None = None,
    strict: bool = False,
) -> Conversion:
    """Write `DatasetXXX_NAME` below `raw`.

    Cases without a segmentation become test cases. Images are linked where the file system allows
    it. Labels are written as nnU-Net needs them, numbered without gaps: 4 of BraTS 2018-2021
    becomes 3. The name of the label scheme is written to `dataset.json`.

    Args:
        source: folder with the cases, at any depth.
        raw: `nnUNet_raw`, which has to exist.
        dataset_id: 1 to 999.
        name: letters, digits, `_` and `-`.
        copy: copy the images instead of linking them.
        workers: number of threads that check and write.
        scheme: label scheme, one of `label_schemes.SCHEMES`; if None, it is found by the names of
            the cases and checked against their labels.
        names: file names besides the usual ones.
        strict: write nothing if there is anything to warn of.

    Raises:
        ValueError, FileExistsError, FileNotFoundError: impossible id or name, the dataset exists,
        there is nothing to convert, the label scheme is not clear, or a warning with `strict`.
    """
    _check_dataset(raw, dataset_id, name)
    remove_leftovers(raw)
    cases = find_cases(source, names)
    result = Conversion(raw / f"Dataset{dataset_id:03d}_{name}")
    with ThreadPoolExecutor(workers) as pool:
        unique = _skip_duplicates(cases, result)
        checks = pool.map(check_case, unique)
        checked = list(tqdm(checks, total=len(unique), desc="checking"))
    usable = [case for case in checked if not case.problem]
    _refuse_nothing(usable, checked, source)
    choice = choose_scheme({case.case.name: case.labels for case in usable}, scheme)
    result.scheme = choice.text
    ready = _sort_cases(checked, choice.target.channels, result)
    _refuse_nothing(ready, checked, source, result)
    if strict and result.warnings():
        raise InputError(f"nothing written, because of --strict: {some(result.warnings(), 20)}")
    _write_dataset(ready, choice, result, copy, workers)
    return result


def _check_dataset(raw: Path, dataset_id: int, name: str) -> None:
    if not raw.is_dir():
        raise MissingFileError(
            f"nnUNet_raw is {raw}, which is no folder; correct it, or type: mkdir -p {raw}"
        )
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
    """Return the first case of each name; list the others as skipped.

    A segmentation in a folder of its own joins the images of its name.
    """
    unique: dict[str, BratsCase] = {}
    images_first = sorted(cases, key=lambda case: set(case.files) <= {SEGMENTATION})
    for case in images_first:
        first = unique.setdefault(case.name, case)
        if first is case:
            continue
        alone = list(case.files) == [SEGMENTATION]
        if alone and SEGMENTATION not in first.files:
            first.files[SEGMENTATION] = case.files[SEGMENTATION]
            first.others += case.others
        else:
            what = "segmentation" if alone else "case"
            folder = next(iter([*case.files.values(), *case.others])).parent
            result.skipped[f"{case.name} ({folder})"] = f"a second {what} of this name"
    return sorted(unique.values(), key=lambda case: case.name)


def _refuse_nothing(
    usable: Sequence[CheckedCase],
    checked: Sequence[CheckedCase],
    source: Path,
    result: Conversion | None = None,
) -> None:
    if usable:
        return
    reasons = result.skipped if result else {case.case.name: case.problem for case in checked}
    text = some([f"{case}: {reason}" for case, reason in reasons.items()], 3)
    raise InputError(f"no case below {source} could be converted ({text})")


def _sort_cases(
    checked: Iterable[CheckedCase], channels: Sequence[str], result: Conversion
) -> list[CheckedCase]:
    """Return the cases to write; enter these and all others into the result."""
    ready = []
    for item in checked:
        case = item.case
        missing = [channel for channel in channels if channel not in case.files]
        if item.problem:
            result.skipped[case.name] = item.problem
        elif missing:
            there = f"; other files there: {case.unused} (see --channel)" if case.others else ""
            result.skipped[case.name] = f"incomplete: no {', '.join(missing)}{there}"
        else:
            ready.append(item)
            (result.training if SEGMENTATION in case.files else result.test).append(case.name)
            result.orientations.setdefault(item.orientation, []).append(case.name)
            if case.others:
                result.unused[case.name] = case.unused
    return ready


def _write_dataset(
    ready: Sequence[CheckedCase], choice: SchemeChoice, result: Conversion, copy: bool, workers: int
) -> None:
    """Write all files; the folder appears when it is complete."""
    with created_whole(result.folder) as folder:
        for name in ("imagesTr", "labelsTr", "imagesTs"):
            (folder / name).mkdir()
        write = partial(_write_case, choice=choice, folder=folder, copy=copy)
        with ThreadPoolExecutor(workers) as pool:
            list(tqdm(pool.map(write, ready), total=len(ready), desc="writing"))
        _write_description(result, choice.target, folder)


def _write_case(item: CheckedCase, choice: SchemeChoice, folder: Path, copy: bool) -> None:
    case = item.case
    images = folder / ("imagesTr" if SEGMENTATION in case.files else "imagesTs")
    for number, channel in enumerate(choice.target.channels):
        _link_or_copy(case.files[channel], images / f"{case.name}_{number:04d}.nii.gz", copy)
    if SEGMENTATION in case.files:
        scheme = choice.of_case.get(case.name, choice.target)
        image = _written_labels(sitk.ReadImage(str(case.files[SEGMENTATION])), scheme)
        target = folder / "labelsTr" / f"{case.name}.nii.gz"
        write_compressed(image, target)


def _written_labels(segmentation: sitk.Image, scheme: BratsScheme) -> sitk.Image:
    """Return the labels as nnU-Net gets them."""
    array = np.rint(sitk.GetArrayFromImage(segmentation))  # checked by `check_case`
    labels = np.zeros(array.shape, np.uint8)
    for label, written in scheme.written.items():
        labels[array == label] = written
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(segmentation)
    return image


def _link_or_copy(source: Path, target: Path, copy: bool) -> None:
    """Link where the name and the file system allow it; copy or compress otherwise."""
    if not source.name.endswith(".nii.gz"):
        write_compressed(sitk.ReadImage(str(source)), target)
        return
    if not copy:
        try:
            target.symlink_to(source.resolve())
            return
        except OSError:
            pass  # a file system without links
    shutil.copyfile(source, target)


def _write_description(result: Conversion, scheme: BratsScheme, folder: Path) -> None:
    description = {
        "channel_names": {str(number): channel for number, channel in enumerate(scheme.channels)},
        "labels": scheme.dataset_labels(),
        "numTraining": len(result.training),
        "file_ending": ".nii.gz",
        "name": result.folder.name,
        SCHEME_KEY: scheme.name,
    }
    if len(scheme.trained) > 1:
        description["regions_class_order"] = scheme.class_order()
    write_text(folder / "dataset.json", json.dumps(description, indent=2))
    rows = [{"case": case, "reason": reason} for case, reason in result.skipped.items()]
    rows += [
        {"case": case, "reason": f"not used: {files}"} for case, files in result.unused.items()
    ]
    if rows:
        write_csv(rows, folder / "skipped.csv")
