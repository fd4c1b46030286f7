"""Child processes of a sweep: their output goes to logs, and they end when the sweep ends."""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from nnunet_fm.internal.atomic_files import write_text
from nnunet_fm.internal.errors import FailedRunError
from nnunet_fm.nnunet.commands import command, environment, log_tail


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
            lock_file: file that the host's name and the process's number are written to.
            cores: CPU cores that the process may use; all if None.

        Returns:
            The return code; minus the signal's number after a signal.
        """
        with log.open("a") as stream:
            stream.write(f"$ {' '.join(argv)}\n")
            stream.flush()
            with self._lock:
                if self.stopped:
                    return -signal.SIGTERM
                child = subprocess.Popen(
                    command(argv),
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
                if lock_file:
                    write_text(lock_file, f"{socket.gethostname()} {child.pid}")
            try:
                return child.wait()
            finally:
                with self._lock:
                    self.running.discard(child)

    def stop(self) -> None:
        """Terminate all processes; what nnU-Net has saved stays."""
        with self._lock:
            self.stopped = True
            for child in self.running:
                with suppress(ProcessLookupError):  # it has ended already
                    os.killpg(child.pid, signal.SIGTERM)


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


def run_logged(argv: Sequence[str], log: Path) -> None:
    """Run one command to its end and append its output to a log.

    Raises:
        RuntimeError: it failed; the message holds the end of the log.
        KeyboardInterrupt: see `stopped_with_us`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    children = ChildProcesses()
    with stopped_with_us(children):
        code = children.run(argv, log, {})
    if code:
        raise FailedRunError(f"`{' '.join(argv)}` failed; {log_tail(log)}")
