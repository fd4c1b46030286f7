"""The slice store: one blosc2 file a volume, one slice a chunk, and a manifest with checksums."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import torch
from jaxtyping import Float

from nnunet_fm.internal.errors import InputError, MissingFileError, StorageError
from nnunet_fm.internal.files import replaced_atomically, write_text
from nnunet_fm.internal.messages import some
from nnunet_fm_pretrain.data.preprocessing import Slices

VOLUMES, ENDING = "volumes", ".b2nd"
_RECORD = "record"


@dataclass(frozen=True)
class VolumeRecord:
    """One line of the manifest.

    Attributes:
        volume: path below `volumes`, without ending.
        dataset, subject, session, sequence, licence: of the source.
        slices: numbers of the slices in the cube.
        size: side of a slice (pixels).
        dtype: `float16`, or `uint8` (compact).
        scale, low: value = (code - 1) * scale + low for uint8 codes from 1; code 0 is background.
        source_sha256: of the input's bytes.
        preprocessing: key of the numbers and of the plug-in that made it.
        registered: the same text for volumes that lie on one grid with the same slices; empty for
            one by itself.
        sha256: of the stored values.
        voxels_sha256: of the input's voxels, see `nnunet_fm.data.volumes.voxels_sha256`; empty in
            older stores.
    """

    volume: str
    dataset: str
    subject: str
    session: str
    sequence: str
    licence: str
    slices: tuple[int, ...]
    size: int
    dtype: str
    scale: float
    low: float
    source_sha256: str
    preprocessing: str
    registered: str
    sha256: str
    voxels_sha256: str = ""


def volume_path(store: Path, volume: str) -> Path:
    """File of a volume."""
    return store / VOLUMES / f"{volume}{ENDING}"


def write_volume(store: Path, values: Slices, compact: bool, **about: Any) -> VolumeRecord:
    """Write one volume, atomically; the record is kept in the file as well.

    Args:
        store: folder of the store.
        values: the slices as floats, background exactly 0.
        compact: store 255 grey levels instead of float16.
        **about: the other fields of `VolumeRecord`.
    """
    codes, scale, low = _compact(values) if compact else (values.astype(np.float16), 1.0, 0.0)
    record = VolumeRecord(
        size=values.shape[1],
        dtype=str(codes.dtype),
        scale=scale,
        low=low,
        sha256=hashlib.sha256(codes.tobytes()).hexdigest(),
        **about,
    )
    path = volume_path(store, record.volume)
    path.parent.mkdir(parents=True, exist_ok=True)
    shuffle = blosc2.Filter.BITSHUFFLE if compact else blosc2.Filter.SHUFFLE
    with replaced_atomically(str(path)) as temporary:
        Path(temporary).unlink(missing_ok=True)  # of a writer that was killed
        try:
            array = blosc2.asarray(
                codes,
                chunks=(1, *codes.shape[1:]),
                blocks=(1, *codes.shape[1:]),
                cparams={
                    "codec": blosc2.Codec.ZSTD,
                    "clevel": 5,
                    "filters": [shuffle],
                    "nthreads": 1,
                },
                urlpath=temporary,
                mode="w",
            )
            array.schunk.vlmeta[_RECORD] = json.dumps(asdict(record))
        except RuntimeError as error:  # what blosc2 says where a disk is full
            raise StorageError(f"blosc2: {error}") from error
    return record


def read_record(path: Path) -> VolumeRecord | None:
    """The record inside a volume's file; None if there is none, or the file is damaged."""
    try:
        array = blosc2.open(str(path), mode="r")
        return _record(json.loads(array.schunk.vlmeta[_RECORD]))
    except Exception:  # blosc2 raises several kinds; whatever it is, the volume is made again
        return None


def intact_record(store: Path, volume: str) -> VolumeRecord | None:
    """The record of a volume that is there with the values that it was written with; else None."""
    path = volume_path(store, volume)
    record = read_record(path)
    return record if record and _values_sha256(path) == record.sha256 else None


def _values_sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(blosc2.open(str(path), mode="r")[:].tobytes()).hexdigest()
    except Exception:  # blosc2 raises several kinds for a damaged file
        return None


def manifest_name(part: int, parts: int) -> str:
    """File of the manifest of one part."""
    return "manifest.jsonl" if parts == 1 else f"manifest_{part:04d}_of_{parts:04d}.jsonl"


def read_manifests(store: Path) -> tuple[list[VolumeRecord], int]:
    """Records of all manifests of a store, and in how many parts it was made.

    Raises:
        ValueError: manifests of several partitions.
    """
    found = sorted(store.glob("manifest*.jsonl"))
    parts = {
        int(m.group(1)) if (m := re.search(r"_of_(\d+)\.jsonl$", p.name)) else 1 for p in found
    }
    if len(parts) > 1:
        raise InputError(
            f"{store} has manifests of {sorted(parts)} parts; allowed: one number. Delete the stale ones"
        )
    lines = [line for path in found for line in path.read_text().splitlines()]
    return [_record(json.loads(line)) for line in lines], parts.pop() if parts else 0


def write_manifest(path: Path, records: Sequence[VolumeRecord]) -> None:
    """Write records as JSON lines, sorted by volume, atomically."""
    lines = [json.dumps(asdict(r)) for r in sorted(records, key=lambda r: r.volume)]
    write_text(path, "".join(f"{line}\n" for line in lines))


class SliceStore:
    """Random access to every slice of a store; slice number i is the same as long as the manifest is.

    Args:
        folder: as `prepare` wrote it. Manifests of several parts are read as one.

    Raises:
        FileNotFoundError: no store there, or a volume of the manifest has gone.
        ValueError: no slice in it, or slices of several sizes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        records, parts = read_manifests(folder)
        if not records:
            raise MissingFileError(
                f"{folder} is no slice store; type: nnunet-fm pretrain prepare DATA -o {folder}"
            )
        missing = [n for n in range(parts) if not (folder / manifest_name(n, parts)).is_file()]
        if missing:
            raise InputError(
                f"{folder} lacks part {some([str(n) for n in missing])} of {parts}; prepare --part-id it"
            )
        self.records = sorted(records, key=lambda r: r.volume)
        twins = copies(self.records)  # prepared in different parts
        if twins:
            volume, earlier = next(iter(twins.items()))
            raise InputError(
                f"{volume} was made from the very bytes of {earlier}; leave one of them out"
            )
        gone = [r.volume for r in self.records if not volume_path(folder, r.volume).is_file()]
        if gone:
            raise MissingFileError(
                f"{len(gone)} volumes of {folder} have gone: {some(gone)}; type the `nnunet-fm pretrain prepare` again"
            )
        sizes = sorted({r.size for r in self.records})
        if len(sizes) > 1:
            raise InputError(
                f"{folder} holds slices of sides {sizes}; allowed: one size a store; prepare it anew"
            )
        self.size = sizes[0]
        self._together: dict[str, list[VolumeRecord]] = {}
        for record in self.records:
            self._together.setdefault(record.registered or record.volume, []).append(record)
        self._ends = np.cumsum([len(r.slices) for r in self.records])

    def __len__(self) -> int:
        """Number of slices."""
        return int(self._ends[-1])

    def where(self, index: int) -> tuple[VolumeRecord, int]:
        """The volume of slice number `index`, and the slice's place in it."""
        volume = int(np.searchsorted(self._ends, index, side="right"))
        before = int(self._ends[volume - 1]) if volume else 0
        return self.records[volume], index - before

    def read(self, index: int) -> Float[np.ndarray, "h w"]:
        """Slice number `index` as float32: z-scores, background 0."""
        record, place = self.where(index)
        return self.read_slice(record, place)

    def read_slice(self, record: VolumeRecord, place: int) -> Float[np.ndarray, "h w"]:
        """The slice at `place` among a volume's slices."""
        path = volume_path(self.folder, record.volume)
        try:
            values = blosc2.open(str(path), mode="r", dparams={"nthreads": 1})[place]
        except Exception as error:  # blosc2 raises several kinds for a damaged file
            raise StorageError(
                f"{path} cannot be read ({error}); type: nnunet-fm pretrain doctor --store {self.folder}"
            ) from error
        return _decoded(values, record)

    def registered(self, record: VolumeRecord) -> list[VolumeRecord]:
        """The volumes on one grid with this one, itself among them, sorted by name."""
        return self._together[record.registered or record.volume]

    def read_volume(self, record: VolumeRecord) -> Slices:
        """All slices of a volume."""
        return _decoded(
            blosc2.open(str(volume_path(self.folder, record.volume)), mode="r")[:], record
        )

    def identity(self) -> str:
        """SHA-256 of what is in the store: names and checksums of the volumes."""
        text = "\n".join(f"{r.volume} {r.sha256}" for r in self.records)
        return hashlib.sha256(text.encode()).hexdigest()

    def subjects(self) -> list[str]:
        """Sorted `DATASET/SUBJECT` of everybody in the store."""
        return sorted({f"{r.dataset}/{r.subject}" for r in self.records})

    def damaged(self) -> Iterator[str]:
        """Volumes whose values no longer have the manifest's checksum; reads everything."""
        for record in self.records:
            if _values_sha256(volume_path(self.folder, record.volume)) != record.sha256:
                yield record.volume


def copies(records: Sequence[VolumeRecord]) -> dict[str, str]:
    """Volumes made from the bytes of an earlier one, and that one: a person under two names biases every split."""
    first: dict[str, str] = {}
    found = {r.volume: first.setdefault(r.source_sha256, r.volume) for r in records}
    return {volume: earlier for volume, earlier in found.items() if earlier != volume}


def _compact(slices: Slices) -> tuple[np.ndarray, float, float]:
    """Codes 1 to 255 between the smallest and the largest value; 0 for background, exactly."""
    inside = slices != 0
    if not inside.any():
        return np.zeros(slices.shape, np.uint8), 1.0, 0.0
    low, high = float(slices[inside].min()), float(slices[inside].max())
    scale = (high - low) / 254 or 1.0
    codes = np.where(inside, np.rint((slices - low) / scale) + 1, 0)
    return codes.astype(np.uint8), scale, low


def _decoded(values: np.ndarray, record: VolumeRecord) -> np.ndarray:
    if record.dtype != "uint8":
        exact: np.ndarray = (
            torch.from_numpy(values).float().numpy()
        )  # numpy converts half value by value
        return exact
    levels = np.concatenate([[0], np.arange(255) * record.scale + record.low]).astype(np.float32)
    return levels[values]


def _record(content: dict[str, Any]) -> VolumeRecord:
    return VolumeRecord(**{**content, "slices": tuple(content["slices"])})
