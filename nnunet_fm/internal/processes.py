"""Processes: which are alive, and workers that end with the process that started them."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import resource_tracker, util
from multiprocessing.context import SpawnContext, SpawnProcess

import psutil

CLOCK_SECONDS = 60  # by which the clocks of a machine and its file server may differ
STOPPING = (signal.SIGINT, signal.SIGTERM)


class _Worker(SpawnProcess):
    """A process that Ctrl-C and SIGTERM reach only after `receive_signals`.

    A terminal and a batch system send them to workers, too. One that is still importing would
    print a traceback or die, and the process that started it would report a crash.
    """

    def start(self) -> None:
        resource_tracker.ensure_running()  # its start would let the signals through
        former = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)


class WorkerContext(SpawnContext):
    """Starts workers of pools and of PyTorch's `DataLoader`; they call `receive_signals`."""

    Process = _Worker  # type: ignore[assignment]


class _LibraryWorker(_Worker):
    """A worker that a library starts: it ends with its parent, and then prints no traceback.

    Ctrl-C does not end it: the library ends it when its own process stops.
    """

    interrupted = False

    def run(self) -> None:
        """Do what the library asks for."""
        signal.signal(signal.SIGINT, self._interrupt)
        receive_signals()
        end_with_parent()
        try:
            super().run()
        except Exception:
            parent = multiprocessing.parent_process()
            if self.interrupted or (parent is not None and not parent.is_alive()):
                sys.exit(1)
            raise

    def _interrupt(self, *_: object) -> None:
        self.interrupted = True


def receive_signals() -> None:
    """Let Ctrl-C and SIGTERM reach this worker, after it has said what they do."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


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
    context = WorkerContext() if method == "spawn" else multiprocessing.get_context(method)
    return ProcessPoolExecutor(
        processes,
        mp_context=context,
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


def end_workers_with_us() -> None:
    """Let the workers that libraries start from here on end when this process ends.

    For libraries that start processes with `multiprocessing` and cannot be given a context.
    """
    multiprocessing.get_context("spawn").Process = _LibraryWorker  # type: ignore[misc,assignment]
    util.register_after_fork(end_with_parent, _end_with_parent)


def _end_with_parent(_: object) -> None:
    end_with_parent()


def _start_worker(prepare: Callable[[], object] | None) -> None:
    signal.signal(signal.SIGINT, _finish_this_task)
    receive_signals()
    end_with_parent()
    if prepare is not None:
        prepare()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # not sys.exit: the main thread may be in the middle of a volume


def _finish_this_task(*_: object) -> None:
    """Do nothing at Ctrl-C: the process that started this worker gives it no other task.

    A handler, as programs that the worker starts would inherit that the signal is ignored.
    """
