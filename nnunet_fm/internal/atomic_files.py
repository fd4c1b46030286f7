"""Write files atomically: in a temporary folder beside their target, then moved into place.

Whoever is killed while writing leaves the target as it was, and a hidden temporary folder that
names its machine and process; `remove_leftovers` deletes those of dead processes.
"""

import csv
import errno
import functools
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nnunet_fm.internal.csv_text import csv_text
from nnunet_fm.internal.errors import ExistingFileError, StorageError, UserError
from nnunet_fm.internal.processes import is_alive

PREFIX, TEMPORARY = ".nnunet-fm-", ".tmp"
OWNER = re.compile(rf"{re.escape(PREFIX)}(.+)-(\d+)-[^-]*{re.escape(TEMPORARY)}")
STALE_SECONDS = 3600  # a writer on another machine counts as dead after so long
# torch and safetensors have exceptions of their own where a disk is full, with one of these words
WRITER = re.compile("PytorchStreamWriter|inline_container|iostream|No space left|I/O error")
FULL = {errno.ENOSPC, errno.EDQUOT, None}


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Create a hidden folder that no other process uses, and delete it at the end.

    What dead writers left beside it is deleted, once for each folder and process.
    """
    _tidy_once(parent)
    name = f"{PREFIX}{socket.gethostname()}-{os.getpid()}-"
    folder = Path(tempfile.mkdtemp(TEMPORARY, name, parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def _tidy_once(folder: Path) -> None:
    remove_leftovers(folder)


def leftovers(folder: Path, below: bool = False) -> list[Path]:
    """List the temporary folders whose writers died, sorted.

    A writer on another machine counts as dead once it has written nothing for an hour.

    Args:
        folder: where to look.
        below: look into all folders below it, too.
    """
    found = []
    for parent, names, _ in os.walk(folder):  # skips what others delete meanwhile
        ours = [name for name in names if OWNER.fullmatch(name)]
        found += [Path(parent, name) for name in ours if _is_left_over(Path(parent, name))]
        names[:] = [name for name in names if name not in ours] if below else []
    return sorted(found)


def _is_left_over(folder: Path) -> bool:
    owner = OWNER.fullmatch(folder.name)
    if owner is None:
        return False
    try:
        if owner[1] == socket.gethostname():
            return not is_alive(int(owner[2]), folder.stat().st_mtime)
        latest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
    except OSError:  # its writer has just finished
        return False
    return time.time() - latest > STALE_SECONDS


def remove_leftovers(folder: Path, below: bool = False) -> None:
    """Delete what dead writers left in a folder; arguments as of `leftovers`."""
    for path in leftovers(folder, below):
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def replaced_atomically(target: Path, then: str = "rerun the command") -> Iterator[Path]:
    """Yield a path to write to, then move that file over `target`; on errors keep the old one.

    The path has the name of the target. Several processes and machines may write the same target
    at once; the last one wins.

    Args:
        target: the file; its folder exists.
        then: what to do after the cause is removed, for the error's message.

    Raises:
        OSError: the disk is full or not writable; the message says what survived.
    """
    try:
        with temporary_folder(target.parent) as folder:
            temporary = folder / target.name
            yield temporary
            sync(temporary)
            os.replace(temporary, target)
    except Exception as error:
        if _is_of_storage(error):
            raise _not_written(target, error, then) from error
        raise


@contextmanager
def created_whole(target: Path, then: str = "rerun the command") -> Iterator[Path]:
    """Yield a new folder to fill, then give it its name; on errors nothing remains of it.

    Args:
        target: the folder, which does not exist yet or is empty; its parents are created.
        then: what to do after the cause is removed, for the error's message.

    Raises:
        FileExistsError: `target` was filled meanwhile.
        OSError: the disk is full or not writable.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(target.parent) as folder:
            temporary = folder / target.name
            temporary.mkdir()
            yield temporary
            if target.exists() and any(target.iterdir()):
                raise ExistingFileError(f"{target} exists; another process has just written it")
            os.replace(temporary, target)
    except Exception as error:
        if _is_of_storage(error):
            raise _not_written(target, error, then) from error
        raise


def sync(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _is_of_storage(error: Exception) -> bool:
    """Whether a disk or file system caused an error."""
    if isinstance(error, StorageError):
        return True
    if isinstance(error, UserError):
        return False
    return isinstance(error, OSError) or bool(WRITER.search(str(error)))


def _not_written(target: Path, error: Exception, then: str) -> StorageError:
    """Say why a file was not written, what survived, and what to do."""
    survived = f"; the previous {target.name} is intact" if target.exists() else ""
    if isinstance(error, StorageError):  # it says what to do
        return StorageError(f"could not write {target}: {error}{survived}")
    reason = getattr(error, "strerror", None) or str(error)
    remedy = _remedy(target, getattr(error, "errno", None))
    return StorageError(f"could not write {target} ({reason}){survived}. {remedy}, then {then}")


def _remedy(target: Path, code: int | None) -> str:
    """Return what removes the cause of an error of the operating system."""
    if not target.parent.is_dir():
        return f"Its folder {target.parent} is missing: create it, or give another"
    if code == errno.EROFS:
        return "The disk is read-only: give a folder on another"
    if code in (errno.EACCES, errno.EPERM):
        return f"Allow writing to {target.parent}, or give another folder"
    if code == errno.ENAMETOOLONG:
        return "Give it a shorter name"
    if code in (errno.EMFILE, errno.ENFILE):
        return "Allow more open files (ulimit -n 4096)"
    if code in FULL:
        return "Free disk space"
    return "Remove the cause"


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8) atomically; its folder exists."""
    with replaced_atomically(path) as temporary:
        temporary.write_bytes(text.encode())


def write_if_changed(path: Path, text: str) -> None:
    """Write a text file as `write_text`, unless it holds this text already.

    So a command that has nothing left to do works on a read-only disk, too.
    """
    content = text.encode()
    if not path.is_file() or path.read_bytes() != content:
        write_text(path, text)


def write_csv(rows: Iterable[Any], path: Path) -> None:
    """Write dataclass instances or dicts of one kind atomically, their fields as columns.

    Args:
        rows: a line each; at least one.
        path: UTF-8 file; its folder is created.
    """
    content = [row if isinstance(row, dict) else asdict(row) for row in rows]
    columns = list(content[0])
    write_lines(path, columns, [[row[column] for column in columns] for row in content])


def write_lines(path: Path, columns: Iterable[object], rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file (UTF-8) atomically: the header, and a line for each row.

    Its folder is created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        replaced_atomically(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(map(csv_text, columns))
        writer.writerows(map(csv_text, row) for row in rows)
