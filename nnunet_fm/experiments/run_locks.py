"""Which runs of a sweep are being trained, so that no two processes train one run."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nnunet_fm.experiments.runs import Run
from nnunet_fm.internal.atomic_files import write_text
from nnunet_fm.internal.errors import FailedRunError
from nnunet_fm.internal.processes import is_alive

LOGS, RUNNING = "logs", "running"  # folders of a sweep
STALE_SECONDS = 3600  # a run on another machine counts as dead after so long without output


@contextmanager
def run_lock(run: Run, folder: Path) -> Iterator[Path]:
    """Hold the lock of a run while it is trained.

    Args:
        run: the run.
        folder: folder of the sweep.

    Yields:
        The lock file, which names a machine and a process.

    Raises:
        RuntimeError: another process trains the run.
    """
    import fcntl  # absent on Windows, where sweeps can still be inspected

    lock_file = folder / RUNNING / run.name
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with (lock_file.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # checking and locking must be one step
        if run.name in running_runs(folder):
            raise FailedRunError(
                f"another process trains it (nnunet-fm sweep status {folder}); if that process "
                f"has died, delete {lock_file}"
            )
        write_text(lock_file, f"{socket.gethostname()} {os.getpid()}")
    try:
        yield lock_file
    finally:
        lock_file.unlink(missing_ok=True)


def running_runs(folder: Path) -> list[str]:
    """List the names of the runs that a living process trains.

    A run on another machine counts as running while its log is written to at least every hour.

    Args:
        folder: folder of the sweep.
    """
    names = []
    for lock_file in sorted((folder / RUNNING).glob("[!.]*")):
        with suppress(FileNotFoundError, ValueError):  # the run has just ended or just begins
            host, process = lock_file.read_text().split()
            if host == socket.gethostname():
                alive = is_alive(int(process))
            else:
                alive = _was_written_lately(folder / LOGS / f"{lock_file.name}.log")
            if alive:
                names.append(lock_file.name)
    return names


def _was_written_lately(log: Path) -> bool:
    return log.is_file() and time.time() - log.stat().st_mtime < STALE_SECONDS
