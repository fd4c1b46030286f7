"""SHA-256 of input files, remembered by what the file system says of them."""

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from nnunet_fm.internal.errors import MissingFileError
from nnunet_fm.internal.files import files_of, files_sha256

VOXELS = "voxels 1"  # raised whenever the same voxels give another hash
_TABLE = "CREATE TABLE IF NOT EXISTS memo (state TEXT PRIMARY KEY, sha256 TEXT)"


class InputHashes:
    """Content hashes of volumes. The memo is a convenience: deleted, locked or read-only, hashes are computed anew.

    Args:
        memo: file to remember them in.
    """

    def __init__(self, memo: Path) -> None:
        self.memo = memo
        self.known = self._load()
        self.fresh: dict[str, str] = {}

    def sha256(self, path: Path, mask: Path | None = None) -> str:
        """Hash of the bytes of a file, or of all files of a DICOM folder, and of the mask's.

        Raises:
            FileNotFoundError: no such file.
        """
        if mask is None:
            return self._one(path)
        return hashlib.sha256(f"{self._one(path)}{self._one(mask)}".encode()).hexdigest()

    def voxels(self, path: Path) -> str:
        """Hash of what a volume shows, see `voxels_sha256`; empty for one that cannot be read: extraction tells why."""
        from nnunet_fm.data.volumes import BadVolumeError, read_volume, voxels_sha256

        try:
            return self._remembered(f"{VOXELS}:", path, lambda: voxels_sha256(read_volume(path)[0]))
        except (BadVolumeError, OSError):
            return ""

    def save(self) -> None:
        """Write what was computed since; a memo that cannot be written is left alone."""
        if not self.fresh:
            return
        try:
            self.memo.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.memo, timeout=10)) as connection, connection:
                connection.execute(_TABLE)
                connection.executemany(
                    "INSERT OR REPLACE INTO memo VALUES (?, ?)", self.fresh.items()
                )
        except (sqlite3.Error, OSError):
            return
        self.known |= self.fresh
        self.fresh = {}

    def _one(self, path: Path) -> str:
        return self._remembered("", path, lambda: files_sha256(files_of(path)))

    def _remembered(self, kind: str, path: Path, compute: Callable[[], str]) -> str:
        if not path.exists():
            raise MissingFileError(
                f"No such file: {path}; what else is missing: nnunet-fm features check-table TABLE"
            )
        state = kind + "\n".join(_state(f) for f in files_of(path))
        found = self.known.get(state) or self.fresh.get(state)
        if found is None:
            found = self.fresh[state] = compute()
        return found

    def _load(self) -> dict[str, str]:
        if not self.memo.is_file():
            return {}
        try:
            with closing(
                sqlite3.connect(f"file:{self.memo}?mode=ro", uri=True, timeout=10)
            ) as connection:
                return dict(connection.execute("SELECT state, sha256 FROM memo"))
        except sqlite3.Error:
            return {}


def _state(file: Path) -> str:
    stat = file.stat()
    return f"{file.absolute()}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}:{stat.st_ino}"
