"""Processes: which are alive, and workers that end with the process that started them."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import psutil

CLOCK_SECONDS = 60  # by which the clocks of a machine and its file server may differ


def is_alive(process: int, since: float | None = None) -> bool:
    """Whether a process of this machine runs; one that ended and was not waited for does not.

    Args:
        process: its number.
        since: time (s since 1970) at which it ran already; one that started more than a minute
            later has got its number anew.
    """
    try:
        found = psutil.Process(process)
        if since is not None and found.create_time() > since + CLOCK_SECONDS:
            return False
        return bool(found.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def worker_pool(
    processes: int, prepare: Callable[[], object] | None = None, method: str | None = "spawn"
) -> ProcessPoolExecutor:
    """Create a pool of processes.

    Args:
        processes: how many; at least 1.
        prepare: called once in each worker, e.g. to limit its threads; must be picklable.
        method: how they are started, as in `multiprocessing.get_context`.
    """
    return ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context(method),
        initializer=_start_worker,
        initargs=(prepare,),
    )


def end_with_parent() -> None:
    """End this worker at once when the process that started it ends.

    For workers of `multiprocessing` and of what is built on it (`concurrent.futures`, PyTorch's
    `DataLoader`); does nothing in a process that was not started so.
    """
    if multiprocessing.parent_process() is not None:
        threading.Thread(target=_wait_for_parent, daemon=True).start()


def _start_worker(prepare: Callable[[], object] | None) -> None:
    end_with_parent()
    if prepare is not None:
        prepare()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # not sys.exit: the main thread may be in the middle of a volume
