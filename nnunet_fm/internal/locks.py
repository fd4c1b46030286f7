"""One writer at a time for a folder."""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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
    writers left in the folder and below it is deleted. A folder on a read-only disk, or without the
    permission to write, is not locked: what is finished in it can be read, and whatever has to be
    written fails there.

    Args:
        folder: the folder; created, and removed if nothing was written to it.
        part: what this command writes, where several commands write to one folder at once.

    Raises:
        BusyError: another process holds the lock; the message names it.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    if not is_writable(folder):
        yield
        return
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
        if created:
            _remove_unused(created, Path(lock.lock_file))
        lock.release()


def _remove_unused(created: Sequence[Path], lock_file: Path) -> None:
    """Remove a lock file that is alone in its new folder, and the folders that are empty then.

    Another process may have opened the file; `filelock` gives it no lock on a file that is gone.

    Args:
        created: the folder, then its parents that were created with it.
        lock_file: held by this process.
    """
    if list(created[0].iterdir()) != [lock_file]:
        return
    lock_file.unlink()
    with suppress(OSError):  # another process has just written to one
        for folder in created:
            folder.rmdir()


def is_writable(folder: Path) -> bool:
    """Whether this process may write to a folder, and its disk is not read-only."""
    return os.access(folder, os.W_OK)


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
