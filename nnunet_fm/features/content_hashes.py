"""SHA-256 of input files, with a memo that is valid while a file's size, times and inode are."""

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from nnunet_fm.internal.errors import MissingFileError
from nnunet_fm.internal.files import files_of, files_sha256

VOXELS = "voxels 2"  # raised whenever the same voxels give another hash
_TABLE = "CREATE TABLE IF NOT EXISTS memo (state TEXT PRIMARY KEY, sha256 TEXT)"


class InputHashes:
    """Content hashes of volumes.

    The memo only saves time: if it is deleted, locked or read-only, hashes are computed again.

    Args:
        memo: SQLite file that stores the hashes.
    """

    def __init__(self, memo: Path) -> None:
        self.memo = memo
        self.known = self._load()
        self.fresh: dict[str, str] = {}

    def sha256(self, path: Path, mask: Path | None = None) -> str:
        """Hash the bytes of a file or of all files of a DICOM folder, and of the mask if given.

        Raises:
            FileNotFoundError: the file does not exist.
        """
        if mask is None:
            return self._bytes_sha256(path)
        both = f"{self._bytes_sha256(path)}{self._bytes_sha256(mask)}"
        return hashlib.sha256(both.encode()).hexdigest()

    def voxels(self, path: Path) -> str:
        """Hash what a volume shows, see `voxels_sha256`.

        Returns:
            The hash; empty for a volume that cannot be read (extraction reports the reason).
        """
        from nnunet_fm.data.volumes import BadVolumeError, read_volume, voxels_sha256

        def compute() -> str:
            return voxels_sha256(read_volume(path)[0])

        try:
            return self._recall(f"{VOXELS}:", path, compute)
        except (BadVolumeError, OSError):
            return ""

    def save(self) -> None:
        """Write new hashes to the memo; a memo that cannot be written is ignored."""
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

    def _bytes_sha256(self, path: Path) -> str:
        return self._recall("", path, lambda: files_sha256(files_of(path)))

    def _recall(self, kind: str, path: Path, compute: Callable[[], str]) -> str:
        """Return the hash of unchanged files from the memo; compute and keep it otherwise."""
        if not path.exists():
            raise MissingFileError(
                f"No such file: {path}; find all missing files with: "
                "nnunet-fm features check-table TABLE"
            )
        state = kind + "\n".join(_file_state(file) for file in files_of(path))
        digest = self.known.get(state) or self.fresh.get(state)
        if digest is None:
            digest = compute()
            self.fresh[state] = digest
        return digest

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


def _file_state(file: Path) -> str:
    stat = file.stat()
    return f"{file.absolute()}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}:{stat.st_ino}"
