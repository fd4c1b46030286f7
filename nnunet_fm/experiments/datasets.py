"""Check that a dataset is the one that a sweep is about, and find its folds."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from nnunet_fm.data.label_schemes import SCHEME_KEY, get_scheme
from nnunet_fm.internal.config import Part, Positive, Seed, Text
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.messages import some
from nnunet_fm.nnunet.dataset_files import read_dataset_json, read_folds
from nnunet_fm.nnunet.datasets import dataset_id
from nnunet_fm.nnunet.file_names import DATASET_JSON, SPLITS_JSON
from nnunet_fm.nnunet.splits import (
    NNUNET_FOLDS,
    NNUNET_SEED,
    Split,
    dataset_folds,
    draw_folds,
    labelled_cases,
)

FEWEST_VALIDATED = 2  # cases of a fold: one case has no spread


class Expected(Part):
    """What a dataset must have.

    Attributes:
        cases: number of labelled cases.
        labels: names of labels or regions that its dataset.json must have; none if empty.
        scheme: name of its BraTS label scheme, which names the labels too.
    """

    cases: Positive
    labels: tuple[Text, ...] = ()
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

    seed: Seed = NNUNET_SEED
    folds: Annotated[int, Field(ge=2, le=1000)] = NNUNET_FOLDS
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
    description = read_dataset_json(dataset / DATASET_JSON, "numTraining", "labels")
    number = dataset_id(dataset.name)
    advice = f"convert it again, or type expected.{number}=null to use it as it is"
    if description["numTraining"] != expected.cases:
        raise InputError(
            f"{dataset.name} has {description['numTraining']} labelled cases, the sweep expects "
            f"{expected.cases}; {advice}"
        )
    preprocessed = len(labelled_cases(dataset))
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


def sweep_folds(dataset: Path, splits: Splits | None) -> list[Split] | None:
    """Return the folds of a preprocessed dataset that a sweep trains on; nothing is written.

    Args:
        dataset: its folder in nnUNet_preprocessed.
        splits: how the cases are divided; if None, as the dataset's own file says, or as nnU-Net
            will draw them.

    Returns:
        The folds; None if the cases are not known before they are preprocessed.

    Raises:
        FileNotFoundError: the file of splits does not exist.
        ValueError: the dataset has other folds or too few cases, or the file names other cases.
    """
    own = dataset_folds(dataset)
    if splits is None:
        if own == []:
            cases = len(labelled_cases(dataset))
            raise InputError(
                f"{dataset.name} has {cases} cases, too few for nnU-Net's {NNUNET_FOLDS} folds; "
                f"type splits.folds=N with N from 2 to {max(2, cases // FEWEST_VALIDATED)}"
            )
        return own
    folds = _draw(dataset, splits) if splits.file is None else _read(dataset, splits.file)
    target = dataset / SPLITS_JSON
    if target.is_file() and _sorted(own or []) != _sorted(folds):
        source = splits.file or f"seed {splits.seed}, {splits.folds} folds"
        raise InputError(
            f"{target} holds other folds than the sweep's ({source}); type splits=null to use "
            "them, or move that file away (with the runs that were trained on it)"
        )
    return folds


def check_fold(dataset: Path, folds: list[Split], fold: int) -> None:
    """Refuse a fold that does not exist, or that validates too few cases.

    nnU-Net would divide the cases in another way for a fold that its file does not have.
    """
    if fold >= len(folds):
        raise InputError(f"fold {fold} of {dataset.name}; allowed: 0 to {len(folds) - 1}")
    validated = len(folds[fold]["val"])
    if validated < FEWEST_VALIDATED:
        raise InputError(
            f"fold {fold} of {dataset.name} validates {validated} case; allowed: "
            f"{FEWEST_VALIDATED} or more, e.g. with fewer folds: splits.folds=N"
        )


def _draw(dataset: Path, splits: Splits) -> list[Split]:
    cases = labelled_cases(dataset)
    if len(cases) < splits.folds:
        raise InputError(
            f"{dataset.name} has {len(cases)} preprocessed cases for {splits.folds} folds; type: "
            f"nnUNetv2_plan_and_preprocess -d {dataset_id(dataset.name)} if cases are missing, "
            "or splits.folds=N"
        )
    return draw_folds(cases, splits.seed, splits.folds)


def _read(dataset: Path, file: Path) -> list[Split]:
    if not file.is_file():
        raise MissingFileError(f"splits.file {file} does not exist")
    folds = read_folds(file)
    named = {case for fold in folds for side in ("train", "val") for case in fold[side]}
    unknown = sorted(named - set(labelled_cases(dataset)))
    if unknown:
        raise InputError(f"{file} names {some(unknown)}, which {dataset.name} does not have")
    return folds


def _sorted(folds: list[Split]) -> list[Split]:
    return [{side: sorted(cases) for side, cases in fold.items()} for fold in folds]
