"""Running the runs: nnU-Net's own commands in child processes, on this machine or through SLURM."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Queue

from nnunet_fm.experiments.config import Sweep
from nnunet_fm.experiments.runs import Run, State
from nnunet_fm.internal.errors import FailedRunError
from nnunet_fm.internal.files import TEMPORARY, write_text
from nnunet_fm.nnunet.commands import command, end_of, environment

LOGS, OUTCOMES, RUNNING = "logs", "outcomes", "running"
SILENT = 3600  # seconds without a word after which a run on another machine counts as dead


@dataclass(frozen=True)
class Place:
    """Where a run on this machine may compute.

    Attributes:
        gpu: number of the only GPU that it sees; None: all.
        cores: that it may use; None: all. nnU-Net takes a thread per core of the machine, and runs
            that share cores then wait for each other's threads at every operation.
    """

    gpu: int | None = None
    cores: tuple[int, ...] | None = None


def places(sweep: Sweep) -> list[Place]:
    """One for each run at a time: GPUs in turn, or equal shares of the cores."""
    if sweep.gpus:
        return [Place(gpu=sweep.gpus[n % len(sweep.gpus)]) for n in range(sweep.at_a_time)]
    if sweep.device != "cpu" or sweep.at_a_time == 1 or not hasattr(os, "sched_getaffinity"):
        return [Place()] * sweep.at_a_time
    cores = sorted(os.sched_getaffinity(0))
    shares = min(sweep.at_a_time, len(cores))
    return [Place(cores=tuple(cores[n % shares :: shares])) for n in range(sweep.at_a_time)]


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run: its name.
        state: `finished`, `failed` or `stopped` (the sweep was told to stop).
        seconds: of this attempt.
        reason: of a failure: what killed it, or the last lines of its log.
        log: where everything stands that it said.
    """

    run: str
    state: str
    seconds: float
    reason: str
    log: str


class Children:
    """The processes that are running, so that a stopped sweep stops them too."""

    def __init__(self) -> None:
        self.lock, self.running, self.stopped = (
            threading.Lock(),
            set[subprocess.Popen[str]](),
            False,
        )

    def run(
        self,
        words: Sequence[str],
        log: Path,
        extra: dict[str, str],
        mark: Path | None = None,
        cores: tuple[int, ...] | None = None,
    ) -> int:
        """Run a command, its output to the end of a log, its machine and number into `mark`; its return code."""
        with log.open("a") as stream:
            stream.write(f"$ {' '.join(words)}\n")
            stream.flush()
            with self.lock:
                if self.stopped:
                    return -signal.SIGTERM
                child = subprocess.Popen(
                    command(words),
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env=environment() | {"PYTHONUNBUFFERED": "1"} | extra,
                    start_new_session=True,  # its workers go with it
                )
                self.running.add(child)
                if cores:
                    with suppress(ProcessLookupError):  # it ended at once
                        os.sched_setaffinity(child.pid, cores)
                if mark:
                    write_text(mark, f"{socket.gethostname()} {child.pid}")
            try:
                return child.wait()
            finally:
                with self.lock:
                    self.running.discard(child)

    def stop(self) -> None:
        """End everything that runs; what nnU-Net saved stays."""
        with self.lock:
            self.stopped = True
            for child in self.running:
                with suppress(ProcessLookupError):  # it ended by itself
                    os.killpg(child.pid, signal.SIGTERM)


def execute(
    run: Run, sweep: Sweep, folder: Path, children: Children, place: Place | None = None
) -> Outcome:
    """Train one run, or go on with it, and write down how it ended.

    Args:
        run: what is trained.
        sweep: device and processes.
        folder: of the sweep; the log is kept in it.
        children: that it becomes one of.
        place: on this machine; all of it if None.
    """
    place = place or Place()
    log = folder / LOGS / f"{run.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    extra = {} if place.gpu is None else {"CUDA_VISIBLE_DEVICES": str(place.gpu)}
    if sweep.processes:
        extra |= {
            "nnUNet_n_proc_DA": str(sweep.processes),
            "nnUNet_def_n_proc": str(sweep.processes),
        }
    started = time.monotonic()
    try:
        with _marked(run, folder) as mark:
            words = run.command(sweep.device)
            code = (
                0
                if run.state() is State.FINISHED
                else children.run(words, log, extra, mark, place.cores)
            )
        state = (
            "finished"
            if run.state() is State.FINISHED
            else "stopped"
            if children.stopped
            else "failed"
        )
        reason = _reason(code, log) if state == "failed" else ""
    except Exception as error:  # of this run; the others go on
        state, reason = "failed", f"{type(error).__name__}: {error}"
    outcome = Outcome(run.name, state, time.monotonic() - started, reason, str(log))
    (folder / OUTCOMES).mkdir(exist_ok=True)
    write_text(folder / OUTCOMES / f"{run.name}.json", json.dumps(asdict(outcome)))
    return outcome


@contextmanager
def _marked(run: Run, folder: Path) -> Iterator[Path]:
    """Say that the run is being trained; nobody else may at the same time.

    Raises:
        RuntimeError: another process does.
    """
    mark = folder / RUNNING / run.name
    mark.parent.mkdir(parents=True, exist_ok=True)
    import fcntl  # what only looks at sweeps works without it, on Windows

    with (mark.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # looking and marking are one step
        if run.name in running(folder):
            raise FailedRunError(
                f"another process trains it (nnunet-fm sweep status {folder}); if that has died, delete {mark}"
            )
        write_text(mark, f"{socket.gethostname()} {os.getpid()}")
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


def running(folder: Path) -> list[str]:
    """Names of the runs that a living process trains; those of other machines if they wrote to their log lately."""
    found = []
    for mark in sorted(p for p in (folder / RUNNING).glob("[!.]*") if p.suffix != TEMPORARY):
        log = folder / LOGS / f"{mark.name}.log"
        with suppress(FileNotFoundError, ValueError):  # it has just ended, or just begins
            host, process = mark.read_text().split()
            lately = log.is_file() and time.time() - log.stat().st_mtime < SILENT
            if _lives(int(process)) if host == socket.gethostname() else lately:
                found.append(mark.name)
    return found


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _reason(code: int, log: Path) -> str:
    end = end_of(log)
    if code == -signal.SIGKILL or "exit code -9" in end or "SIGKILL" in end:
        likely = "killed by the system, most likely for memory: take a smaller batch_size or patch, or at_a_time: 1"
        return f"{likely}; {end}"
    return f"return code {code}; {end}"


def run_here(
    runs: Sequence[Run], sweep: Sweep, folder: Path, said: Callable[[Outcome], None]
) -> list[Outcome]:
    """Run them on this machine, `at_a_time` together; a failed one does not stop the others.

    Args:
        runs: that are not finished.
        sweep: how many at a time, and where.
        folder: of the sweep.
        said: is told of each outcome as it comes.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; the children are ended first, and a second call goes
            on.
    """
    children, free = Children(), Queue[Place]()
    for place in places(sweep):
        free.put(place)

    def one(run: Run) -> Outcome:
        place = free.get()
        try:
            outcome = execute(run, sweep, folder, children, place)
        finally:
            free.put(place)
        if outcome.state != "stopped":
            said(outcome)
        return outcome

    with ThreadPoolExecutor(sweep.at_a_time) as pool, stopping(children):
        futures = [pool.submit(one, run) for run in runs]
        try:
            return [f.result() for f in futures]
        except BaseException:
            children.stop()
            pool.shutdown(cancel_futures=True)
            raise


def run_logged(words: Sequence[str], log: Path) -> None:
    """Run one command to its end, its output to the end of a log; whoever ends us ends it.

    Raises:
        RuntimeError: it failed; the end of the log is told.
        KeyboardInterrupt: see `stopping`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    children = Children()
    with stopping(children):
        code = children.run(words, log, {})
    if code:
        raise FailedRunError(f"`{' '.join(words)}` failed; {end_of(log)}")


@contextmanager
def stopping(children: Children) -> Iterator[None]:
    """Ctrl-C, SIGTERM and a lost connection (SIGHUP) end the children too.

    Raises:
        KeyboardInterrupt: for any of them.
    """

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signals = (
        (signal.SIGTERM, signal.SIGHUP)
        if threading.current_thread() is threading.main_thread()
        else ()
    )
    former = {number: signal.signal(number, stop) for number in signals}
    try:
        yield
    except KeyboardInterrupt:
        children.stop()
        raise
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
