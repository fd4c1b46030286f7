"""Child processes of a sweep: their output goes to logs, and they end when the sweep ends."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from nnunet_fm.internal.errors import FailedRunError
from nnunet_fm.nnunet.commands import command, environment, log_tail

GRACE_SECONDS = 30.0  # between SIGTERM and SIGKILL
# The child itself writes the file that names it, so that it is known even if we are killed now.
NAMED = 'printf "%s %s" "$1" $$ > "$2" && shift 2 && exec "$@"'


class ChildProcesses:
    """The processes that are running, so that stopping the sweep stops them too.

    Attributes:
        running: the processes.
        stopped: whether `stop` was called; no process starts after it.
    """

    def __init__(self) -> None:
        self.running: set[subprocess.Popen[str]] = set()
        self.stopped = False
        self._lock = threading.Lock()

    def run(
        self,
        argv: Sequence[str],
        log: Path,
        variables: dict[str, str],
        lock_file: Path | None = None,
        cores: tuple[int, ...] | None = None,
    ) -> int:
        """Run a command to its end and append its output to a log.

        Args:
            argv: the command.
            log: file to append to.
            variables: environment variables to set.
            lock_file: file that the child writes the host's name and its number to.
            cores: CPU cores that the process may use; all if None.

        Returns:
            The return code; minus the signal's number after a signal.
        """
        words = command(argv)
        if lock_file:
            words = ["/bin/sh", "-c", NAMED, "sh", socket.gethostname(), str(lock_file), *words]
        with log.open("a") as stream:
            stream.write(f"$ {' '.join(argv)}\n")
            stream.flush()
            with self._lock:
                if self.stopped:
                    return -signal.SIGTERM
                child = subprocess.Popen(
                    words,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env=environment() | {"PYTHONUNBUFFERED": "1"} | variables,
                    start_new_session=True,  # so that its workers are stopped with it
                )
                self.running.add(child)
                if cores:
                    with suppress(ProcessLookupError):  # it has ended already
                        os.sched_setaffinity(child.pid, cores)
            code = child.wait()
            _signal_group(child, signal.SIGKILL)  # workers that outlive it
            with self._lock:
                self.running.discard(child)
            return code

    def stop(self) -> None:
        """Terminate all processes, and kill those that have not ended after `GRACE_SECONDS`.

        What nnU-Net has saved stays.
        """
        with self._lock:
            self.stopped = True
            children = [child for child in self.running if child.poll() is None]
        for child in children:
            _signal_group(child, signal.SIGTERM)
        end = time.monotonic() + GRACE_SECONDS
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, end - time.monotonic()))
            _signal_group(child, signal.SIGKILL)
            child.wait()


def _signal_group(child: "subprocess.Popen[str]", number: int) -> None:
    """Send a signal to a child and to its workers."""
    with suppress(ProcessLookupError, PermissionError):  # all of them have ended
        os.killpg(child.pid, number)


@contextmanager
def stopped_with_us(children: ChildProcesses) -> Iterator[None]:
    """Stop the children after Ctrl-C, SIGTERM or a lost connection (SIGHUP).

    Raises:
        KeyboardInterrupt: after any of them.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    former = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            former[number] = signal.signal(number, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        children.stop()
        raise
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def run_logged(argv: Sequence[str], log: Path, lock_file: Path | None = None) -> None:
    """Run one command to its end and append its output to a log.

    Args:
        argv: the command.
        log: file to append to; its folder is created.
        lock_file: file that names the process while it runs.

    Raises:
        RuntimeError: it failed; the message holds the end of the log.
        KeyboardInterrupt: see `stopped_with_us`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    children = ChildProcesses()
    if lock_file:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with stopped_with_us(children):
            code = children.run(argv, log, {}, lock_file)
    finally:
        if lock_file:
            lock_file.unlink(missing_ok=True)
    if code:
        raise FailedRunError(f"`{' '.join(argv)}` failed; {log_tail(log)}")
