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
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Queue

from nnunet_fm.files import replaced_atomically
from nnunet_fm.programs import command, environment
from nnunet_fm.sweep.config import Sweep
from nnunet_fm.sweep.runs import Run, State

LOGS, OUTCOMES, RUNNING, TAIL = "logs", "outcomes", "running", 15


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
        self.lock, self.running, self.stopped = threading.Lock(), set[subprocess.Popen[str]](), False

    def run(self, words: Sequence[str], log: Path, extra: dict[str, str]) -> int:
        """Run a command, its output to the end of a log; its return code."""
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
                os.killpg(child.pid, signal.SIGTERM)


def execute(run: Run, sweep: Sweep, folder: Path, children: Children, gpu: int | None = None) -> Outcome:
    """Train one run, or go on with it, and write down how it ended.

    Args:
        run: what is trained.
        sweep: device and processes.
        folder: of the sweep; the log is kept in it.
        children: that it becomes one of.
        gpu: number of the only GPU that it sees.
    """
    log = folder / LOGS / f"{run.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    extra = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": str(gpu)}
    if sweep.processes:
        extra |= {"nnUNet_n_proc_DA": str(sweep.processes), "nnUNet_def_n_proc": str(sweep.processes)}
    started = time.monotonic()
    with _marked(run, folder):
        code = children.run(run.command(sweep.device), log, extra)
    state = "finished" if run.state() is State.FINISHED else "stopped" if children.stopped else "failed"
    reason = _reason(code, log) if state == "failed" else ""
    outcome = Outcome(run.name, state, time.monotonic() - started, reason, str(log))
    _write(folder / OUTCOMES / f"{run.name}.json", outcome)
    return outcome


@contextmanager
def _marked(run: Run, folder: Path) -> Iterator[None]:
    """Say that this process trains the run; nobody else may at the same time.

    Raises:
        RuntimeError: another process does.
    """
    if run.name in running(folder):
        raise RuntimeError(f"{run.name} is being trained by another process; look: nnunet-fm sweep status {folder}")
    mark = folder / RUNNING / run.name
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(f"{socket.gethostname()} {os.getpid()}")
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def running(folder: Path) -> list[str]:
    """Names of the runs of a sweep that a living process trains; of other machines all that say so."""
    found = []
    for mark in sorted((folder / RUNNING).glob("*")):
        host, process = mark.read_text().split()
        if host != socket.gethostname() or _lives(int(process)):
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
    tail = "\n".join(log.read_text(errors="ignore").splitlines()[-TAIL:])
    if code == -signal.SIGKILL or "exit code -9" in tail or "SIGKILL" in tail:
        return (
            f"killed by the system, most likely for memory: take a smaller batch_size or patch, or at_a_time: 1\n{tail}"
        )
    return f"return code {code}; the end of {log}:\n{tail}"


def _write(path: Path, outcome: Outcome) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_atomically(str(path)) as temporary:
        Path(temporary).write_text(json.dumps(asdict(outcome)))


def run_here(runs: Sequence[Run], sweep: Sweep, folder: Path, said: Callable[[Outcome], None]) -> list[Outcome]:
    """Run them on this machine, `at_a_time` together; a failed one does not stop the others.

    Args:
        runs: that are not finished.
        sweep: how many at a time, and which GPUs.
        folder: of the sweep.
        said: is told of each outcome as it comes.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; the children are ended first, and a second call goes on.
    """
    children, gpus = Children(), Queue[int | None]()
    for number in range(sweep.at_a_time):
        gpus.put(sweep.gpus[number % len(sweep.gpus)] if sweep.gpus else None)

    def one(run: Run) -> Outcome:
        gpu = gpus.get()
        try:
            outcome = execute(run, sweep, folder, children, gpu)
        finally:
            gpus.put(gpu)
        if outcome.state != "stopped":
            said(outcome)
        return outcome

    with ThreadPoolExecutor(sweep.at_a_time) as pool, _stopping_on_sigterm():
        futures = [pool.submit(one, run) for run in runs]
        try:
            return [f.result() for f in futures]
        except BaseException:
            children.stop()
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def _stopping_on_sigterm() -> Iterator[None]:
    """SIGTERM is taken as Ctrl-C."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
