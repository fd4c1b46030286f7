"""Preparing the volumes of one grid: read, strip, preprocess, write, or take from the store."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from nibabel import Nifti1Image

from nnunet_fm.data.skull_stripping import find_stripper
from nnunet_fm.data.volumes import (
    EXACT_ZERO,
    BadVolumeError,
    Mask,
    Volume,
    check_same_grid,
    read_volume,
    voxel_size,
    voxels_sha256,
    zero_is_rounded,
)
from nnunet_fm.internal.files import files_of, files_sha256
from nnunet_fm.internal.messages import reason_of
from nnunet_fm_pretrain.data import acquisition
from nnunet_fm_pretrain.data.array_files import intact_record, write_volume
from nnunet_fm_pretrain.data.preprocessing import (
    Prepared,
    Preprocessing,
    StorePreprocessing,
    Triple,
)
from nnunet_fm_pretrain.data.records import Record
from nnunet_fm_pretrain.data.source import Source


@dataclass(frozen=True)
class PrepareOptions:
    """How every volume is made.

    Attributes:
        store: folder to write to.
        preprocessing: slices or whole volumes.
        skull_strip: name of the skull stripping plug-in.
        uint8: store 255 grey levels instead of float16.
        registered: the sequences of one subject and session lie on one grid: crop them together,
            keep the same slices.
    """

    store: Path
    preprocessing: StorePreprocessing = Preprocessing()
    skull_strip: str = "none"
    uint8: bool = False
    registered: bool = False

    def key(self) -> str:
        """Return the identity of what is done to the input's bytes."""
        encoding = "uint8" if self.uint8 else "float16"
        return f"{self.preprocessing.key()}-{self.skull_strip}-{encoding}"

    def describe(self) -> str:
        """Return the options of `pretrain prepare` that decide the values of a store."""
        words = [self.preprocessing.describe(), "--skull-strip", self.skull_strip]
        if self.uint8:
            words.append("--uint8")
        if self.registered:
            words.append("--registered")
        return " ".join(words)

    def groups(self, sources: Sequence[Source]) -> list[list[Source]]:
        """Group the sources that are made together."""
        if not self.registered:
            return [[source] for source in sources]
        groups: dict[tuple[str, ...], list[Source]] = {}
        for source in sources:
            groups.setdefault((source.dataset, source.subject, source.session), []).append(source)
        return list(groups.values())


@dataclass(frozen=True)
class Outcome:
    """The result of preparing one source.

    Attributes:
        source: the volume.
        record: what was written; None if it failed.
        reason: why it failed.
        ready: whether the store held it already.
    """

    source: Source
    record: Record | None = None
    reason: str = ""
    ready: bool = False


class ReadSource(NamedTuple):
    """A source with its voxels, its brain mask and its image (for the geometry)."""

    source: Source
    volume: Volume
    brain: Mask
    image: Nifti1Image


def make_group(sources: Sequence[Source], options: PrepareOptions) -> list[Outcome]:
    """Make the volumes of one grid.

    They are taken from the store if they were made from the same bytes in the same way.
    """
    digests: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for source in sources:
        try:
            digests[source.name] = source_sha256(source)
        except (BadVolumeError, MemoryError) as error:
            reasons[source.name] = reason_of(error)
    group = ""
    if len(digests) > 1:
        group = hashlib.sha256("".join(digests.values()).encode()).hexdigest()[:16]
    keys = {source.name: _volume_key(source, options) for source in sources}
    record_type = options.preprocessing.record_type
    records = {name: intact_record(options.store, name, record_type) for name in digests}
    ready = all(
        record is not None
        and (record.source_sha256, record.preprocessing, record.registered)
        == (digests[name], keys[name], group)
        for name, record in records.items()
    )
    notes = {source.name: _notes(source) for source in sources if source.name in digests}
    records = {name: r and replace(r, **notes[name]) for name, r in records.items()}
    if not ready:
        read, failed = _read_all([s for s in sources if s.name in digests], options)
        records, more_failed = _write_all(read, digests, notes, group, options)
        reasons |= failed | more_failed
    return [Outcome(s, records.get(s.name), reasons.get(s.name, ""), ready) for s in sources]


def _notes(source: Source) -> dict[str, Any]:
    """Return the fields of a record that do not change its values."""
    said = source.acquisition.completed(acquisition.from_files(source.path))
    return {"licence": source.licence, "acquisition": said}


def _volume_key(source: Source, options: PrepareOptions) -> str:
    return options.key() + (EXACT_ZERO if zero_is_rounded(source.path) else "")


def source_sha256(source: Source) -> str:
    """Hash the bytes of the source's files, including its mask.

    Raises:
        BadVolumeError: a file does not exist or cannot be read.
    """
    files = [*files_of(source.path), *([source.mask] if source.mask else [])]
    for file in files:
        if not file.is_file():
            raise BadVolumeError(f"{file} does not exist")
    try:
        return files_sha256(files)
    except OSError as error:
        raise BadVolumeError(f"{error.filename} cannot be read: {error.strerror}") from None


def _read_all(
    sources: Sequence[Source], options: PrepareOptions
) -> tuple[list[ReadSource], dict[str, str]]:
    """Read and strip the sources; return also the reasons of those that failed, by name."""
    strip = find_stripper(options.skull_strip)
    read: list[ReadSource] = []
    reasons: dict[str, str] = {}
    for source in sources:
        try:
            volume, image = read_volume(source.path)
            brain = strip(volume, image, source.mask)
            read.append(ReadSource(source, volume, brain, image))
        except (BadVolumeError, MemoryError) as error:
            reasons[source.name] = reason_of(error)
    return read, reasons


def _write_all(
    read: Sequence[ReadSource],
    digests: Mapping[str, str],
    notes: Mapping[str, dict[str, Any]],
    group: str,
    options: PrepareOptions,
) -> tuple[dict[str, Record | None], dict[str, str]]:
    """Preprocess and write volumes of one grid; return records and reasons of failure, by name."""
    try:
        prepared = _preprocess(read, options.preprocessing)
    except BadVolumeError as error:
        return {}, {r.source.name: str(error) for r in read}
    records: dict[str, Record | None] = {}
    for (source, volume, _, _), (values, fields) in zip(read, prepared, strict=True):
        records[source.name] = write_volume(
            options.store,
            values,
            options.preprocessing.record_type,
            options.preprocessing.chunk(),
            options.uint8,
            volume=source.name,
            dataset=source.dataset,
            subject=source.subject,
            session=source.session,
            sequence=source.sequence,
            **notes[source.name],
            source_sha256=digests[source.name],
            preprocessing=_volume_key(source, options),
            registered=group,
            voxels_sha256=voxels_sha256(volume),
            **fields,
        )
    return records, {}


def _preprocess(read: Sequence[ReadSource], preprocessing: StorePreprocessing) -> list[Prepared]:
    check_same_grid([r.image for r in read])
    volumes = [r.volume for r in read]
    brains = [r.brain for r in read]
    spacing: Triple = (1.0, 1.0, 1.0)
    if read:
        spacing = voxel_size(read[0].image)
    return preprocessing.apply(volumes, brains, spacing)
