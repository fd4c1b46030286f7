"""Label schemes: what the numbers in a dataset's label files mean."""

import json
from dataclasses import dataclass
from pathlib import Path

from nnunet_fm.internal.errors import InputError, MissingFileError


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
        """Read the regions, or the foreground labels, of an nnU-Net `dataset.json`.

        Raises:
            ValueError: the file is not a `dataset.json`.
        """
        try:
            content = json.loads(dataset_json.read_text())
            labels = {
                name: tuple(value) if isinstance(value, list) else (int(value),)
                for name, value in content["labels"].items()
            }
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{dataset_json} is not a dataset.json of nnU-Net "
                f"({type(error).__name__}: {error}); it needs labels, e.g. "
                '{"labels": {"background": 0, "tumour": 1}, "file_ending": ".nii.gz"}'
            ) from None
        regions = tuple(
            Region(name, values)
            for name, values in labels.items()
            if values != (0,) and name not in ("background", "ignore")
        )
        ignore = labels["ignore"][0] if "ignore" in labels else None
        return cls(regions, ignore, str(content.get("file_ending", ".nii.gz")))


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
        FileNotFoundError: the description is needed but does not exist.
    """
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
