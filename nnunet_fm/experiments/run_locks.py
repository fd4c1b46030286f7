"""Which runs of a sweep are being trained, so that no two processes train one run."""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from nnunet_fm.experiments.runs import Run
from nnunet_fm.internal.atomic_files import write_text
from nnunet_fm.internal.errors import FailedRunError
from nnunet_fm.internal.locks import one_writer
from nnunet_fm.internal.processes import is_alive

LOG = logging.getLogger(__name__)
LOGS, RUNNING = "logs", "running"  # folders of a sweep
PREPROCESSING = "preprocessing"  # name of its log; its lock file is hidden, as it is no run
STALE_SECONDS = 3600  # a run on another machine counts as dead after so long without output
WAIT_SECONDS = 1.0  # between two looks at a process that is waited for


@contextmanager
def sweep_lock(folder: Path) -> Iterator[None]:
    """Hold the folder of a sweep; wait for the preprocessing that a killed sweep has left.

    Trainings that a killed sweep has left are waited for when their turn comes, see `run_lock`.

    Args:
        folder: folder of the sweep; created.

    Raises:
        BusyError: another sweep writes to the folder.
    """
    with one_writer(folder):
        lock_file = preprocessing_lock(folder)
        if _is_running(lock_file, folder):
            _say_waiting("preprocessing", lock_file)
        while _is_running(lock_file, folder):
            time.sleep(WAIT_SECONDS)
        yield


def preprocessing_lock(folder: Path) -> Path:
    """Return the file that names the process that preprocesses for a sweep."""
    return folder / RUNNING / f".{PREPROCESSING}"


@contextmanager
def run_lock(run: Run, folder: Path, wait: Callable[[], bool] | None = None) -> Iterator[Path]:
    """Hold the lock of a run while it is trained.

    Args:
        run: the run.
        folder: folder of the sweep.
        wait: asked every second whether to wait on for the end of another process that trains the
            run; that process is not waited for if None.

    Yields:
        The lock file, which names a machine and a process.

    Raises:
        RuntimeError: another process trains the run.
    """
    lock_file = folder / RUNNING / run.name
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    told = False
    while not _enter(lock_file, folder):
        if wait is None or not wait():
            raise FailedRunError(
                f"another process trains it (nnunet-fm sweep status {folder}); if that process "
                f"has died, delete {lock_file}"
            )
        if not told:
            _say_waiting(run.name, lock_file)
            told = True
        time.sleep(WAIT_SECONDS)
    try:
        yield lock_file
    finally:
        lock_file.unlink(missing_ok=True)


def _enter(lock_file: Path, folder: Path) -> bool:
    """Write this process into a lock file, unless a living process is named there."""
    # checking and locking must be one step
    with FileLock(lock_file.parent / ".lock").acquire(poll_interval=0.01):
        if _is_running(lock_file, folder):
            return False
        write_text(lock_file, f"{socket.gethostname()} {os.getpid()}")
        return True


def _say_waiting(what: str, lock_file: Path) -> None:
    with suppress(FileNotFoundError, ValueError):  # it has just ended
        host, process = lock_file.read_text().split()
        LOG.warning(
            "%s: waiting for process %s on %s, which an earlier sweep has left. If that process "
            "is something else, delete %s",
            what,
            process,
            host,
            lock_file,
        )


def running_runs(folder: Path) -> list[str]:
    """List the names of the runs that a living process trains.

    A run on another machine counts as running while its log is written to at least every hour.

    Args:
        folder: folder of the sweep.
    """
    lock_files = sorted((folder / RUNNING).glob("[!.]*"))
    return [file.name for file in lock_files if _is_running(file, folder)]


def _is_running(lock_file: Path, folder: Path) -> bool:
    try:
        host, process = lock_file.read_text().split()
        if host == socket.gethostname():
            return is_alive(int(process), since=lock_file.stat().st_mtime)
    except (FileNotFoundError, ValueError):  # it has just ended or just begins
        return False
    return _was_written_lately(folder / LOGS / f"{lock_file.name.removeprefix('.')}.log")


def _was_written_lately(log: Path) -> bool:
    return log.is_file() and time.time() - log.stat().st_mtime < STALE_SECONDS
