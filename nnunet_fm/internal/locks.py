"""One writer at a time for a folder."""

import json
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from nnunet_fm.internal.atomic_files import remove_leftovers, write_text
from nnunet_fm.internal.errors import BusyError
from nnunet_fm.internal.json_files import read_object

LOCK, HOLDER = ".nnunet-fm{}.lock", ".nnunet-fm{}.holder.json"


@contextmanager
def one_writer(folder: Path, part: str = "") -> Iterator[None]:
    """Hold the lock of a folder, so that no second command writes to it.

    The operating system releases the lock when the process ends, however it ends. What killed
    writers left in the folder and below it is deleted.

    Args:
        folder: the folder; created, and removed if nothing was written to it.
        part: what this command writes, where several commands write to one folder at once.

    Raises:
        BusyError: another process holds the lock; the message names it.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    holder = folder / HOLDER.format(part)
    lock = FileLock(folder / LOCK.format(part), blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise BusyError(
            f"{folder} is being written by {_describe(holder)}; wait until it has finished, "
            "stop it, or give another folder"
        ) from None
    try:
        remove_leftovers(folder, below=True)
        write_text(holder, json.dumps(_myself()))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock_file = Path(lock.lock_file)
        if created and list(folder.iterdir()) == [lock_file]:
            lock_file.unlink()
            _remove_empty(created)
        lock.release()


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders from the innermost on, until one holds something."""
    for folder in folders:
        if any(folder.iterdir()):
            return
        folder.rmdir()


def _myself() -> dict[str, object]:
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _describe(holder: Path) -> str:
    """Describe the process that holds a lock, from the file that it wrote."""
    try:
        about = read_object(holder)
        return (
            f"process {about['process']} on {about['host']} since {about['since']} "
            f"(`{about['command']}`)"
        )
    except (OSError, ValueError, KeyError):  # it has just begun or just ended
        return "another process"
