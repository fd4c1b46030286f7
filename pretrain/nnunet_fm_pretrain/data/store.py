"""The contract of stores: what the engine, `doctor` and every method may ask of any of them."""

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Generic

from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.messages import counted, some
from nnunet_fm_pretrain.data.array_files import values_sha256, volume_path
from nnunet_fm_pretrain.data.records import (
    AnyRecord,
    find_duplicates,
    from_json,
    group_sessions,
    manifest_name,
    read_manifests,
)


class Store(ABC, Generic[AnyRecord]):
    """Preprocessed volumes in a folder, as `pretrain prepare` writes them.

    Unit number i (a slice or a volume, see the subclass) is the same as long as the manifest is.

    Args:
        folder: of the store. Manifests of several parts are read as one.

    Attributes:
        records: one per volume, sorted by name.

    Raises:
        FileNotFoundError: no store in the folder, or a volume of the manifest is missing.
        ValueError: a store of another kind, an incomplete one, or one with duplicates.
    """

    record_type: ClassVar[type]
    title: ClassVar[str]
    command: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        contents, parts = read_manifests(folder)
        advice = f"type: nnunet-fm pretrain prepare DATA {self.command}-o {folder}"
        if not contents:
            raise MissingFileError(f"{folder} is not a {self.title}; {advice}")
        try:
            records: list[AnyRecord] = [from_json(self.record_type, c) for c in contents]
        except InputError as error:
            raise InputError(
                f"{folder} is not a {self.title} ({error}); type: nnunet-fm pretrain prepare DATA "
                f"{self.command}-o STORE"
            ) from None
        self.records = sorted(records, key=lambda record: record.volume)
        self._check_parts(parts)
        self._check_volumes()
        self._by_grid: dict[str, list[AnyRecord]] = {}
        for record in self.records:
            self._by_grid.setdefault(record.grid, []).append(record)

    def _check_parts(self, parts: int) -> None:
        numbers = range(parts)
        missing = [str(n) for n in numbers if not (self.folder / manifest_name(n, parts)).is_file()]
        if missing:
            raise InputError(
                f"{self.folder} lacks part {some(missing)} of {parts}; prepare --part-id it"
            )

    def _check_volumes(self) -> None:
        duplicates = find_duplicates(self.records)  # prepared in different parts
        if duplicates:
            volume, earlier = next(iter(duplicates.items()))
            raise InputError(
                f"{volume} was made from the very bytes of {earlier}; exclude one of them"
            )
        files = {r.volume: volume_path(self.folder, r.volume) for r in self.records}
        missing = [volume for volume, file in files.items() if not file.is_file()]
        if missing:
            raise MissingFileError(
                f"{self.folder} lacks {counted(len(missing), 'volume')}: {some(missing)}; "
                "rerun `nnunet-fm pretrain prepare`"
            )

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of units."""

    @abstractmethod
    def describe(self) -> str:
        """Return the number and the size of the units, for `pretrain doctor`."""

    def identity(self) -> str:
        """Return the SHA-256 of the names and checksums of the volumes."""
        text = "\n".join(f"{r.volume} {r.sha256}" for r in self.records)
        return hashlib.sha256(text.encode()).hexdigest()

    def subjects(self) -> list[str]:
        """List `DATASET/SUBJECT` of all subjects, sorted."""
        return sorted({f"{r.dataset}/{r.subject}" for r in self.records})

    def sessions(self) -> list[list[AnyRecord]]:
        """Group the records by dataset, subject and session."""
        return group_sessions(self.records)

    def registered(self, record: AnyRecord) -> list[AnyRecord]:
        """List the volumes on one grid with this one, itself among them, sorted by name."""
        return self._by_grid[record.grid]

    def check(self) -> list[str]:
        """List the volumes whose values differ from the manifest's checksum; reads everything."""
        return [
            record.volume
            for record in self.records
            if values_sha256(volume_path(self.folder, record.volume)) != record.sha256
        ]
