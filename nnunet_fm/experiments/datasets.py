"""Check that a dataset is the one that a sweep is about, and write its folds."""

import json
from pathlib import Path
from typing import Annotated, Any

from batchgenerators.utilities.file_and_folder_operations import load_json
from pydantic import Field, field_validator, model_validator

from nnunet_fm.data.label_schemes import SCHEME_KEY, get_scheme
from nnunet_fm.internal.config import Part
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.files import write_text
from nnunet_fm.internal.messages import some
from nnunet_fm.nnunet.datasets import dataset_id
from nnunet_fm.nnunet.file_names import DATASET_JSON, GROUND_TRUTH, SPLITS_JSON
from nnunet_fm.nnunet.splits import NNUNET_SEED, draw_folds

Folds = list[dict[str, list[str]]]


class Expected(Part):
    """What a dataset must have.

    Attributes:
        cases: number of labelled cases.
        labels: names of labels or regions that its dataset.json must have; none if empty.
        scheme: name of its BraTS label scheme, which names the labels too.
    """

    cases: Annotated[int, Field(gt=0)]
    labels: tuple[str, ...] = ()
    scheme: str | None = None

    @field_validator("scheme")
    @classmethod
    def _check_scheme(cls, name: str | None) -> str | None:
        return name and get_scheme(name).name


class Splits(Part):
    """The folds of a dataset: drawn as nnU-Net draws them, or read from a file.

    Attributes:
        seed: seed of the draw; nnU-Net's own is 12345.
        folds: number of folds, 2 or more.
        file: a `splits_final.json` to use instead of a draw.
    """

    seed: int = NNUNET_SEED
    folds: Annotated[int, Field(ge=2)] = 5
    file: Path | None = None

    @model_validator(mode="after")
    def _check_one_source(self) -> "Splits":
        if self.file is not None and self.model_fields_set != {"file"}:
            raise InputError("splits have a file and a seed or folds; allowed: one of them")
        return self


def check_expected(dataset: Path, expected: Expected) -> None:
    """Compare a preprocessed dataset with what a sweep expects.

    Args:
        dataset: its folder in nnUNet_preprocessed.
        expected: number of cases and names of labels.

    Raises:
        ValueError: another number of cases, a missing label, or another label scheme (a dataset of
            version 0.1 names none).
    """
    description = load_json(str(dataset / DATASET_JSON))
    number = dataset_id(dataset.name)
    advice = f"convert it again, or type expected.{number}=null to use it as it is"
    if description["numTraining"] != expected.cases:
        raise InputError(
            f"{dataset.name} has {description['numTraining']} labelled cases, the sweep expects "
            f"{expected.cases}; {advice}"
        )
    preprocessed = len(_preprocessed_cases(dataset))
    if preprocessed < expected.cases:
        raise InputError(
            f"{dataset.name} has {preprocessed} of {expected.cases} cases preprocessed; type: "
            f"nnUNetv2_plan_and_preprocess -d {number}"
        )
    labels = list(expected.labels)
    if expected.scheme:
        labels += list(get_scheme(expected.scheme).dataset_labels())
        recorded = description.get(SCHEME_KEY, expected.scheme)
        if recorded != expected.scheme:
            raise InputError(
                f"{dataset.name} has the label scheme {recorded}, the sweep expects "
                f"{expected.scheme}; {advice}"
            )
    missing = [label for label in labels if label not in description["labels"]]
    if missing:
        raise InputError(
            f"{dataset.name} has no label {missing[0]!r}; it has "
            f"{', '.join(description['labels'])}. The sweep expects it; {advice}"
        )


def write_splits(dataset: Path, splits: Splits) -> None:
    """Write the folds of a preprocessed dataset, unless it has the same folds already.

    Args:
        dataset: its folder in nnUNet_preprocessed.
        splits: how the cases are divided.

    Raises:
        FileNotFoundError: the file of splits does not exist.
        ValueError: the dataset has other folds, or the file names other cases.
    """
    folds = _draw(dataset, splits) if splits.file is None else _read(dataset, splits.file)
    target = dataset / SPLITS_JSON
    if not target.is_file():
        write_text(target, json.dumps(folds, indent=4))
    elif _sorted(load_json(str(target))) != _sorted(folds):
        source = splits.file or f"seed {splits.seed}, {splits.folds} folds"
        raise InputError(
            f"{target} holds other folds than the sweep's ({source}); type splits=null to use "
            "them, or move that file away (with the runs that were trained on it)"
        )


def _preprocessed_cases(dataset: Path) -> list[str]:
    """List the cases; nnU-Net copies their ground truth once all are preprocessed."""
    ending = load_json(str(dataset / DATASET_JSON))["file_ending"]
    files = (dataset / GROUND_TRUTH).glob(f"*{ending}")
    return sorted(file.name.removesuffix(ending) for file in files)


def _draw(dataset: Path, splits: Splits) -> Folds:
    cases = _preprocessed_cases(dataset)
    if len(cases) < splits.folds:
        raise InputError(
            f"{dataset.name} has {len(cases)} preprocessed cases for {splits.folds} folds; type: "
            f"nnUNetv2_plan_and_preprocess -d {dataset_id(dataset.name)} if cases are missing, "
            "or splits.folds=N"
        )
    return draw_folds(cases, splits.seed, splits.folds)


def _read(dataset: Path, file: Path) -> Folds:
    if not file.is_file():
        raise MissingFileError(f"splits.file {file} does not exist")
    try:
        folds: Folds = json.loads(file.read_text())
        named = {case for fold in folds for side in ("train", "val") for case in fold[side]}
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{file} is not a splits_final.json ({type(error).__name__}: {error}); allowed: a "
            'list of {"train": [CASE, ...], "val": [CASE, ...]}'
        ) from None
    unknown = sorted(named - set(_preprocessed_cases(dataset)))
    if unknown:
        raise InputError(f"{file} names {some(unknown)}, which {dataset.name} does not have")
    return folds


def _sorted(folds: list[dict[str, Any]]) -> Folds:
    return [{side: sorted(cases) for side, cases in fold.items()} for fold in folds]
