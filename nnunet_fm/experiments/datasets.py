"""Whether a dataset is the one that a sweep is about, and its folds."""

import json
from pathlib import Path
from typing import Annotated, Any

from batchgenerators.utilities.file_and_folder_operations import load_json
from pydantic import Field, model_validator

from nnunet_fm.internal.config import Part
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.files import write_text
from nnunet_fm.nnunet.datasets import dataset_id
from nnunet_fm.nnunet.file_names import DATASET_JSON, GROUND_TRUTH, SPLITS_JSON
from nnunet_fm.nnunet.splits import NNUNET_SEED, draw_folds


class Expected(Part):
    """What a dataset must have.

    Attributes:
        cases: labelled ones.
        labels: names of labels or regions in its dataset.json; any if empty.
    """

    cases: Annotated[int, Field(gt=0)]
    labels: tuple[str, ...] = ()


class Splits(Part):
    """Folds: drawn as nnU-Net draws them, or given.

    Attributes:
        seed: of the draw; nnU-Net's own is 12345.
        folds: how many.
        file: a `splits_final.json` in the place of a draw.
    """

    seed: int = NNUNET_SEED
    folds: Annotated[int, Field(ge=2)] = 5
    file: Path | None = None

    @model_validator(mode="after")
    def _drawn_or_given(self) -> "Splits":
        if self.file is not None and self.model_fields_set != {"file"}:
            raise InputError("splits have a file and a seed or folds; allowed: one of them")
        return self


def check_expected(dataset: Path, expected: Expected) -> None:
    """Compare a preprocessed dataset with what a sweep expects.

    Raises:
        ValueError: another number of cases, or a label that is not there.
    """
    description = load_json(str(dataset / DATASET_JSON))
    number = dataset_id(dataset.name)
    go_on = f"convert it anew, or type expected.{number}=null to run with what there is"
    if description["numTraining"] != expected.cases:
        raise InputError(
            f"{dataset.name} has {description['numTraining']} labelled cases, the sweep expects {expected.cases}; "
            f"{go_on}"
        )
    if (ready := len(_cases(dataset))) < expected.cases:
        raise InputError(
            f"{dataset.name} has {ready} of {expected.cases} cases preprocessed; type: nnUNetv2_plan_and_preprocess -d "
            f"{number}"
        )
    if absent := [label for label in expected.labels if label not in description["labels"]]:
        known = ", ".join(description["labels"])
        raise InputError(
            f"{dataset.name} has no label {absent[0]!r}; it has {known}. The sweep expects it; {go_on}"
        )


def write_splits(dataset: Path, splits: Splits) -> None:
    """Write a preprocessed dataset's folds, unless it has these already.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the dataset has other folds, or the file is not about its cases.
    """
    wanted, target = _wanted(dataset, splits), dataset / SPLITS_JSON
    if not target.is_file():
        write_text(target, json.dumps(wanted, indent=4))
    elif _sorted(load_json(str(target))) != _sorted(wanted):
        given = splits.file or f"seed {splits.seed}, {splits.folds} folds"
        raise InputError(
            f"{target} holds other folds than the sweep's ({given}); "
            "type splits=null to use them, or move that file away (with the runs that were trained on it)"
        )


def _cases(dataset: Path) -> list[str]:
    """Names of the cases; nnU-Net copies their labels when all of them are preprocessed."""
    ending = load_json(str(dataset / DATASET_JSON))["file_ending"]
    return sorted(p.name.removesuffix(ending) for p in (dataset / GROUND_TRUTH).glob(f"*{ending}"))


def _wanted(dataset: Path, splits: Splits) -> list[dict[str, list[str]]]:
    cases = _cases(dataset)
    if len(cases) < splits.folds and splits.file is None:
        raise InputError(
            f"{dataset.name} has {len(cases)} preprocessed cases for {splits.folds} folds; type: "
            f"nnUNetv2_plan_and_preprocess -d {dataset_id(dataset.name)} if that is not all of them, or splits.folds=N"
        )
    if splits.file is None:
        return draw_folds(cases, splits.seed, splits.folds)
    if not splits.file.is_file():
        raise MissingFileError(f"splits.file {splits.file} does not exist")
    given: list[dict[str, list[str]]] = load_json(str(splits.file))
    if strange := sorted(
        {case for fold in given for side in fold.values() for case in side} - set(cases)
    ):
        raise InputError(f"{splits.file} names {strange[0]}, which {dataset.name} does not have")
    return given


def _sorted(folds: list[dict[str, Any]]) -> list[dict[str, list[str]]]:
    return [{side: sorted(cases) for side, cases in fold.items()} for fold in folds]
