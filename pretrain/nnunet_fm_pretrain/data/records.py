"""Records: what a store knows of each volume; and manifests, which list them."""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import TypeAdapter, ValidationError

from nnunet_fm.encoders.contract import Z_SCORE
from nnunet_fm.internal.atomic_files import write_if_changed
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.json_files import parse_json, read_utf8
from nnunet_fm.internal.path_parts import check_path_below
from nnunet_fm_pretrain.data.acquisition import Acquisition


@dataclass(frozen=True, kw_only=True)
class Record:
    """One line of the manifest.

    Attributes:
        volume: path below `volumes`, without ending.
        dataset: name of the collection.
        subject: its name within the dataset.
        session: visit or run; may be empty.
        sequence: e.g. `T1`, as `nnunet_fm.data.sequences` names it.
        licence: a note; may be empty.
        dtype: `float16`, or `uint8`.
        scale: value = (code - 1) * scale + low for uint8 codes from 1; code 0 is the background.
        low: see `scale`.
        source_sha256: hash of the input's bytes.
        preprocessing: key of the numbers and of the plug-in that made the volume.
        registered: the same text for volumes on one grid; empty for a single one.
        sha256: hash of the stored values.
        voxels_sha256: hash of the input's voxels, see `nnunet_fm.data.volumes.voxels_sha256`;
            empty in older stores.
        acquisition: TR, TE, flip angle and body region, as far as known.
    """

    kind: ClassVar[str]

    volume: str
    dataset: str
    subject: str
    session: str
    sequence: str
    licence: str
    dtype: str
    scale: float
    low: float
    source_sha256: str
    preprocessing: str
    registered: str
    sha256: str
    voxels_sha256: str = ""
    acquisition: Acquisition = Acquisition()

    @property
    def grid(self) -> str:
        """The same text for volumes on one grid."""
        return self.registered or self.volume


AnyRecord = TypeVar("AnyRecord", bound=Record)


@dataclass(frozen=True, kw_only=True)
class SliceRecord(Record):
    """A volume of a slice store.

    Attributes:
        slices: numbers of the slices in the cube.
        size: side of a slice in pixels.
    """

    kind = "slices"

    slices: tuple[int, ...]
    size: int


@dataclass(frozen=True, kw_only=True)
class VolumeRecord(Record):
    """A volume of a volume store.

    Attributes:
        shape: voxels (z, y, x).
        spacing: size of a voxel in mm (z, y, x).
        intensity: of the values, `z-score` or `0 to 1`.
    """

    kind = "volumes"

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    intensity: str = Z_SCORE


def to_json(record: Record) -> dict[str, Any]:
    """Return a record as plain data."""
    return {"kind": record.kind, **asdict(record)}


# what checks the types of a record's fields
_adapter: Callable[[Any], Any] = cache(TypeAdapter)


def from_json(record_type: type[AnyRecord], content: dict[str, Any]) -> AnyRecord:
    """Return a record from plain data, also of version 0.1, which had slice stores only.

    Raises:
        ValueError: a record of another kind.
    """
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
    kind = fields.pop("kind", SliceRecord.kind)
    if kind != record_type.kind:
        raise InputError(f"a store of {kind}; allowed here: a store of {record_type.kind}")
    try:
        said = _adapter(Acquisition).validate_python(fields.pop("acquisition", {}))
        given = record_type(**fields, acquisition=said)
        checked: AnyRecord = _adapter(record_type).validate_python(vars(given))
        return checked
    except ValidationError as error:
        problem = error.errors()[0]
        reason = f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    except TypeError as error:
        reason = str(error)
    raise InputError(
        f"the record of volume {content.get('volume')!r} is damaged ({reason}); rerun pretrain "
        "prepare"
    )


def manifest_name(part: int, parts: int) -> str:
    """Return the file name of the manifest of one part."""
    return "manifest.jsonl" if parts == 1 else f"manifest_{part:04d}_of_{parts:04d}.jsonl"


def read_manifests(store: Path) -> tuple[list[dict[str, Any]], int]:
    """Read all manifests of a store.

    Returns:
        Records as plain data, and the number of parts in which the store was made.

    Raises:
        ValueError: manifests of several partitions.
    """
    files = sorted(store.glob("manifest*.jsonl"))
    parts = {_parts(file) for file in files}
    if len(parts) > 1:
        raise InputError(
            f"{store} has manifests of {sorted(parts)} parts; "
            "allowed: one number. Delete the stale ones"
        )
    records = [record for path in files for record in _read_manifest(path)]
    return records, parts.pop() if parts else 0


def _read_manifest(path: Path) -> list[dict[str, Any]]:
    """Read the records of one manifest, whose volumes are names below the store's folder."""
    records = []
    for number, line in enumerate(read_utf8(path).splitlines(), 1):
        where = f"{path}, line {number}"
        record = parse_json(line, where, remedy="rerun pretrain prepare")
        check_path_below(record.get("volume"), f"the volume in {where}")
        records.append(record)
    return records


def _parts(manifest: Path) -> int:
    match = re.search(r"_of_(\d+)\.jsonl$", manifest.name)
    return int(match.group(1)) if match else 1


def write_manifest(path: Path, records: Sequence[Record]) -> None:
    """Write records as JSON lines, sorted by volume, atomically; what is there stays."""
    lines = [json.dumps(to_json(r)) for r in sorted(records, key=lambda r: r.volume)]
    write_if_changed(path, "".join(f"{line}\n" for line in lines))


def find_duplicates(records: Sequence[Record]) -> dict[str, str]:
    """Find volumes made from the bytes of an earlier one: they would count a person twice.

    Returns:
        Name of the earlier volume by name of the later one.
    """
    first: dict[str, str] = {}
    earlier = {r.volume: first.setdefault(r.source_sha256, r.volume) for r in records}
    return {volume: other for volume, other in earlier.items() if other != volume}


def group_sessions(records: Sequence[AnyRecord]) -> list[list[AnyRecord]]:
    """Group records by dataset, subject and session."""
    groups: dict[tuple[str, str, str], list[AnyRecord]] = {}
    for record in records:
        key = (record.dataset, record.subject, record.session)
        groups.setdefault(key, []).append(record)
    return list(groups.values())


def sequences_of_sessions(records: Sequence[Record]) -> dict[tuple[str, ...], int]:
    """Count the sessions by the sequences that they have, the most frequent first."""
    counts = Counter(
        tuple(sorted({record.sequence or "an unknown sequence" for record in session}))
        for session in group_sessions(records)
    )
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
