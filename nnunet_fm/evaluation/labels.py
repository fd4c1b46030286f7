"""Label schemes: what the numbers in a dataset's label files mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from nnunet_fm.data.label_images import foreground
from nnunet_fm.data.label_schemes import LONG_NAMES, SCHEME_KEY, SCHEMES, fitting_schemes
from nnunet_fm.data.label_schemes import Region as Region  # an evaluation's own word
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.json_files import read_object
from nnunet_fm.internal.path_parts import check_ending

NO_FOLDER = "no folder; type nnunet-fm evaluate PREDICTIONS GROUND_TRUTH"
EXAMPLE = '{"labels": {"background": 0, "tumour": 1}, "file_ending": ".nii.gz"}'


# Until 2021, enhancing tumour is 4 in the challenge's files and 3 in nnU-Net's. A case with both
# labels is of another scheme; `segmentation` checks this.
BRATS_REGIONS = SCHEMES["gli2021"].scored_regions


@dataclass(frozen=True)
class LabelScheme:
    """The regions of a dataset and how its label files are named.

    Attributes:
        regions: the regions to score.
        ignore: label whose voxels are excluded from scoring (nnU-Net's `ignore`), or None.
        ending: file ending of the label files.
        brats: name of the BraTS scheme that `dataset.json` names; empty if it names none.
    """

    regions: tuple[Region, ...]
    ignore: int | None = None
    ending: str = ".nii.gz"
    brats: str = ""

    @classmethod
    def read(cls, dataset_json: Path) -> "LabelScheme":
        """Read the regions, or the foreground labels, of a `dataset.json`.

        Its labels are names with numbers, as in nnU-Net, or numbers with names, as in the Medical
        Segmentation Decathlon. If it names a BraTS scheme, the challenge's regions that are not
        trained are added.

        Raises:
            ValueError: the file is not a `dataset.json`.
        """
        try:
            content = read_object(dataset_json)
            labels = _labels_by_name(content["labels"])
        except InputError as error:
            raise InputError(
                f"{error}. It is not a dataset.json of nnU-Net, e.g. {EXAMPLE}"
            ) from None
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
        name = content.get(SCHEME_KEY)
        brats = name if name in SCHEMES else ""
        regions += _other_regions(brats, content["labels"])
        ignore = labels["ignore"][0] if "ignore" in labels else None
        return cls(
            regions,
            ignore,
            check_ending(content.get("file_ending", ".nii.gz"), dataset_json),
            brats,
        )

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
        found = foreground(labels)
        unnamed = sorted(found - named)
        if unnamed:
            regions = "; ".join(
                f"{region.name} {', '.join(map(str, region.labels))}" for region in self.regions
            )
            fitting = fitting_schemes(found)
            hint = f"add --scheme NAME if one of these fits: {fitting}; or " if fitting else ""
            if self.brats and SCHEMES[self.brats].covers(found):
                hint = f"add --scheme {self.brats}, which knows the challenge's files too; or "
            raise InputError(
                f"{file} has label {', '.join(map(str, unnamed))}, which no region names "
                f"({regions}). To nnunet-fm evaluate: {hint}give the description of these labels "
                "with --dataset-json FILE"
            )


def _other_regions(name: str, labels: Mapping[str, object]) -> tuple[Region, ...]:
    """Return the regions of a scheme that nnU-Net is not trained for."""
    scheme = SCHEMES.get(name)
    if scheme is None or labels != scheme.dataset_labels():
        return ()
    return tuple(
        Region(LONG_NAMES[region.name], region.labels)
        for region in scheme.written_regions
        if region.name not in scheme.trained
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
