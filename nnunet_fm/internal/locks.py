"""One writer at a time for a folder."""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
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

    The operating system releases the lock when the process ends, however it ends; its file stays,
    as another process may be opening it. What killed writers left in the folder and below it is
    deleted. A folder on a read-only disk, or without the permission to write, is not locked: what
    is finished in it can be read, and whatever has to be written fails there.

    Args:
        folder: the folder; created.
        part: what this command writes, where several commands write to one folder at once.

    Raises:
        BusyError: another process holds the lock; the message names it.
    """
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
        lock.release()


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
