"""Label schemes: what the numbers in a dataset's label files mean."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from nnunet_fm.internal.errors import InputError, MissingFileError

NO_FOLDER = "no folder; type nnunet-fm evaluate PREDICTIONS GROUND_TRUTH"
EXAMPLE = '{"labels": {"background": 0, "tumour": 1}, "file_ending": ".nii.gz"}'


@dataclass(frozen=True)
class Region:
    """A named union of labels, e.g. tumour core."""

    name: str
    labels: tuple[int, ...]


# Enhancing tumour is 3 since 2023 and was 4 before. A case with both labels is an error, because
# 4 is then a resection cavity; `segmentation` checks this.
BRATS_REGIONS = (Region("WT", (1, 2, 3, 4)), Region("TC", (1, 3, 4)), Region("ET", (3, 4)))


@dataclass(frozen=True)
class LabelScheme:
    """The regions of a dataset and how its label files are named.

    Attributes:
        regions: the regions to score.
        ignore: label whose voxels are excluded from scoring (nnU-Net's `ignore`), or None.
        ending: file ending of the label files.
    """

    regions: tuple[Region, ...]
    ignore: int | None = None
    ending: str = ".nii.gz"

    @classmethod
    def read(cls, dataset_json: Path) -> "LabelScheme":
        """Read the regions, or the foreground labels, of a `dataset.json`.

        Its labels are names with numbers, as in nnU-Net, or numbers with names, as in the Medical
        Segmentation Decathlon.

        Raises:
            ValueError: the file is not a `dataset.json`.
        """
        try:
            content = json.loads(dataset_json.read_text())
            labels = _labels_by_name(content["labels"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{dataset_json} is not a dataset.json of nnU-Net "
                f"({type(error).__name__}: {error}); it needs labels, e.g. {EXAMPLE}"
            ) from None
        regions = tuple(
            Region(name, values)
            for name, values in labels.items()
            if values != (0,) and name not in ("background", "ignore")
        )
        if not regions:
            raise InputError(f"{dataset_json} names no label but the background; e.g. {EXAMPLE}")
        ignore = labels["ignore"][0] if "ignore" in labels else None
        return cls(regions, ignore, str(content.get("file_ending", ".nii.gz")))

    def check_labels(self, labels: Integer[np.ndarray, "*grid"], file: Path) -> None:
        """Check that a region names every label of a file, besides background and ignored.

        Args:
            labels: labels of the file.
            file: the file, for the error's message.

        Raises:
            ValueError: a label has no name, so no score would count it.
        """
        named = {0, *(label for region in self.regions for label in region.labels)}
        if self.ignore is not None:
            named.add(self.ignore)
        found = {int(label) for label in np.unique(labels[labels != 0])}
        unnamed = sorted(found - named)
        if unnamed:
            regions = "; ".join(
                f"{region.name} {', '.join(map(str, region.labels))}" for region in self.regions
            )
            raise InputError(
                f"{file} has label {', '.join(map(str, unnamed))}, which no region names "
                f"({regions}); give the description of these labels with --dataset-json FILE"
            )


def _labels_by_name(labels: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    """Return the numbers of each label or region, from either form of `dataset.json`.

    Raises:
        ValueError: a number is not a whole number.
    """
    by_number = all(key.isdigit() and isinstance(value, str) for key, value in labels.items())
    numbers: dict[str, tuple[int, ...]] = {}
    for key, value in labels.items():
        if by_number:
            numbers[str(value)] = (*numbers.get(str(value), ()), int(key))
        else:
            values = value if isinstance(value, list) else [value]
            numbers[key] = tuple(_whole_number(key, number) for number in values)
    return numbers


def _whole_number(name: str, value: object) -> int:
    if isinstance(value, bool) or not str(value).isdigit():
        raise ValueError(f"label {name!r} is {value!r}, not a whole number")
    return int(str(value))


def scheme_of_predictions(
    predictions: Path, regions: str = "dataset", dataset_json: Path | None = None
) -> LabelScheme:
    """Choose the label scheme for a folder of predictions, as `nnunet-fm evaluate` does.

    Args:
        predictions: folder of predictions.
        regions: `dataset`: the regions in `dataset_json`; `brats`: WT, TC and ET.
        dataset_json: description of the dataset (default: `dataset.json` in the folder). With
            `brats` only its file ending is used, and it may be missing.

    Raises:
        FileNotFoundError: the folder, or the description where it is needed, does not exist.
    """
    if not predictions.is_dir():
        raise MissingFileError(f"{predictions} is {NO_FOLDER}")
    description = dataset_json or predictions / "dataset.json"
    if regions == "dataset":
        if not description.is_file():
            raise MissingFileError(
                f"{description} does not exist; give --dataset-json FILE, or --regions brats"
            )
        return LabelScheme.read(description)
    if description.is_file():
        return LabelScheme(BRATS_REGIONS, ending=LabelScheme.read(description).ending)
    return LabelScheme(BRATS_REGIONS)
