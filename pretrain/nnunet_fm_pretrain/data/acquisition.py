"""How a scan was acquired: TR, TE, flip angle and body region, from a table, a sidecar or DICOM."""

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pydicom

from nnunet_fm.data import bids
from nnunet_fm.data.cell_numbers import read_number
from nnunet_fm.data.table_rows import is_missing
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.files import files_of
from nnunet_fm.internal.json_files import read_object

# smallest and largest values; what is beyond has another unit
LIMITS = {"tr_ms": (1.0, 60_000.0), "te_ms": (0.3, 1_000.0), "flip_angle_deg": (1.0, 180.0)}
REGION = "region"
PARAMETERS = tuple(LIMITS)
# names in BIDS sidecars, where times are in seconds, and in DICOM, where they are in ms
KEYS = {"tr_ms": "RepetitionTime", "te_ms": "EchoTime", "flip_angle_deg": "FlipAngle"}
BODY_PART = "BodyPartExamined"
SECOND, MILLISECOND = 1000.0, 1.0  # in ms

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """Parameters of a scan; None and an empty region are unknown.

    Attributes:
        tr_ms: repetition time.
        te_ms: echo time.
        flip_angle_deg: flip angle.
        region: part of the body, in lower case, e.g. `brain`.
    """

    tr_ms: float | None = None
    te_ms: float | None = None
    flip_angle_deg: float | None = None
    region: str = ""

    def completed(self, other: "Acquisition") -> "Acquisition":
        """Return these values, and those of `other` where they are unknown."""
        unknown = {name for name, value in asdict(self).items() if value in (None, "")}
        return replace(self, **{name: getattr(other, name) for name in unknown})


def from_cells(cells: Mapping[str, str], where: str) -> Acquisition:
    """Read the columns of a table that are called like the attributes of `Acquisition`.

    Args:
        cells: of the row.
        where: names table and line, for the error's message.

    Raises:
        ValueError: a cell that is not a number in its range.
    """
    values: dict[str, Any] = {}
    for name, (low, high) in LIMITS.items():
        text = cells.get(name, "")
        if is_missing(text):
            continue
        values[name] = _number(text)
        if not low <= values[name] <= high:
            raise InputError(
                f"{where}: {name} {text!r}; allowed: a number from {low:g} to {high:g}, or an "
                "empty cell where it is unknown"
            )
    if not _is_ordered(values):
        raise InputError(
            f"{where}: te_ms {values['te_ms']:g} is not below tr_ms {values['tr_ms']:g}; allowed: "
            "an echo before the next repetition, both in ms"
        )
    region = cells.get(REGION, "")
    return Acquisition(**values, region="" if is_missing(region) else region.lower())


def from_files(path: Path) -> Acquisition:
    """Read the sidecar of a NIfTI file, or the tags of a DICOM series.

    Args:
        path: NIfTI file, or folder of one DICOM series.

    Returns:
        What they say. Anything but one possible number is unknown, with a warning.
    """
    if path.is_dir():
        return _known(_dicom_tags(path), MILLISECOND, path)
    content: dict[str, Any] = {}
    for sidecar in sidecars(path):
        try:
            content |= read_object(sidecar)
        except ValueError as error:
            logger.warning("%s; its TR, TE and flip angle are unknown", error)
    return _known(content, SECOND, path)


def sidecars(image: Path) -> Iterator[Path]:
    """Iterate over the sidecars of a NIfTI file, the most specific last.

    They are the JSON file of the same name and, inside a BIDS dataset, those in the folders above
    whose entities and suffix the image has too (the inheritance principle).
    """
    name = bids.parse_name(image.name)
    if name is not None:
        folders = list(image.absolute().parents)
        roots = [n for n, folder in enumerate(folders) if (folder / bids.DESCRIPTION).is_file()]
        for folder in reversed(folders[: roots[0] + 1] if roots else []):
            changed = folder.stat().st_mtime_ns if folder.is_dir() else 0
            found = _json_files(folder, changed)
            yield from (folder / file for file in found if _is_inherited(file, name))
    own = image.with_name(image.name.removesuffix(".gz").removesuffix(".nii") + ".json")
    if own.is_file():
        yield own


@cache  # listing a folder of ten thousand subjects for each image takes long
def _json_files(folder: Path, changed: int) -> list[str]:
    """List the JSON files of a folder, sorted; `changed` is the time of its last change."""
    return sorted(path.name for path in folder.glob("*.json"))


def _is_inherited(sidecar: str, image: bids.BidsName) -> bool:
    """Return whether every entity of a sidecar's name is the image's."""
    *parts, suffix = sidecar.removesuffix(".json").split("_")
    own = {f"{key}-{value}" for key, value in image.entities.items()}
    return suffix == image.suffix and set(parts) < own


def _dicom_tags(folder: Path) -> dict[str, Any]:
    tags = [*KEYS.values(), BODY_PART]
    for file in files_of(folder):
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags)
            return {tag: header.get(tag) for tag in tags}
        except Exception:  # pydicom raises several kinds for files that are damaged or no DICOM
            continue
    return {}


def _known(content: Mapping[str, Any], unit: float, path: Path) -> Acquisition:
    """Return what a sidecar or DICOM says; `unit` is that of its times, in ms."""
    values: dict[str, Any] = {}
    for name, key in KEYS.items():
        given = content.get(key)
        value = _number(given) * (unit if name.endswith("_ms") else 1)
        low, high = LIMITS[name]
        if low <= value <= high:
            values[name] = value
        elif given is not None:
            what = "possible" if math.isfinite(value) else "one number"
            logger.warning("%s: %s %s is not %s and taken as unknown", path, key, given, what)
    if not _is_ordered(values):
        logger.warning("%s: the echo is after the repetition; TR and TE are taken as unknown", path)
        values = {name: value for name, value in values.items() if name == "flip_angle_deg"}
    region = content.get(BODY_PART)
    return Acquisition(**values, region=region.lower() if isinstance(region, str) else "")


def _number(value: Any) -> float:
    """Convert a cell, a sidecar's value or a DICOM value to a number; NaN if it is none."""
    try:
        return read_number(str(value))
    except ValueError:
        return math.nan


def _is_ordered(values: Mapping[str, float]) -> bool:
    """Return whether the echo comes before the next repetition, as far as both are known."""
    return values.get("te_ms", 0) < values.get("tr_ms", math.inf)
