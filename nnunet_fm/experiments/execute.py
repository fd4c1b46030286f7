"""Train the runs of a sweep: nnU-Net's own command in a child process, a log and a record each."""

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Queue

from nnunet_fm.experiments.child_processes import ChildProcesses, stopped_with_us
from nnunet_fm.experiments.config import Sweep
from nnunet_fm.experiments.run_locks import LOGS, run_lock
from nnunet_fm.experiments.runs import Run, State
from nnunet_fm.internal.atomic_files import write_text
from nnunet_fm.nnunet.commands import log_tail

OUTCOMES = "outcomes"  # folder of a sweep


@dataclass(frozen=True)
class Slot:
    """The part of this machine that one run may use.

    Attributes:
        gpu: number of the only GPU that the run sees; all GPUs if None.
        cores: CPU cores that it may use; all if None. nnU-Net starts a thread per core of the
            machine, and runs that share cores wait for each other's threads in every operation.
    """

    gpu: int | None = None
    cores: tuple[int, ...] | None = None


def slots(sweep: Sweep) -> list[Slot]:
    """Divide this machine between the runs that are trained in parallel: a slot for each.

    GPUs are assigned in turn; on the CPU, the runs get equal shares of the cores.
    """
    count = sweep.max_parallel
    if sweep.gpus:
        return [Slot(gpu=sweep.gpus[n % len(sweep.gpus)]) for n in range(count)]
    if sweep.device != "cpu" or count == 1 or not hasattr(os, "sched_getaffinity"):
        return [Slot()] * count
    cores = sorted(os.sched_getaffinity(0))
    shares = min(count, len(cores))
    return [Slot(cores=tuple(cores[n % shares :: shares])) for n in range(count)]


@dataclass(frozen=True)
class RunOutcome:
    """How an attempt to train a run ended.

    Attributes:
        run: name of the run.
        state: `finished`, `failed`, or `stopped` together with the sweep.
        seconds: duration of this attempt.
        reason: why it failed: the likely cause and the end of its log; else empty.
        log: file with the run's output.
    """

    run: str
    state: State
    seconds: float
    reason: str
    log: str


def execute(
    run: Run,
    sweep: Sweep,
    folder: Path,
    children: ChildProcesses,
    slot: Slot | None = None,
    wait: bool = False,
) -> RunOutcome:
    """Train or resume one run, and record how it ended.

    Args:
        run: the run.
        sweep: device and number of processes.
        folder: folder of the sweep, for logs and records.
        children: stops the training when the sweep is stopped.
        slot: part of this machine; all of it if None.
        wait: wait for another process that trains the run, e.g. of a sweep that was killed.
    """
    log = folder / LOGS / f"{run.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    reason = ""
    try:
        code = _train(run, sweep, folder, children, slot or Slot(), wait)
        if run.state() is State.FINISHED:
            state = State.FINISHED
        elif children.stopped:
            state = State.STOPPED
        else:
            state = State.FAILED
            reason = _failure_reason(code, log)
    except Exception as error:  # of this run; the others go on
        state = State.STOPPED if children.stopped else State.FAILED
        reason = f"{type(error).__name__}: {error}"
    outcome = RunOutcome(run.name, state, time.monotonic() - started, reason, str(log))
    (folder / OUTCOMES).mkdir(exist_ok=True)
    write_text(folder / OUTCOMES / f"{run.name}.json", json.dumps(asdict(outcome)))
    return outcome


def _train(
    run: Run, sweep: Sweep, folder: Path, children: ChildProcesses, slot: Slot, wait: bool
) -> int:
    """Run nnU-Net's training, unless the run is finished; return the return code."""
    variables = {}
    if slot.gpu is not None:
        variables["CUDA_VISIBLE_DEVICES"] = str(slot.gpu)
    if sweep.processes:
        variables["nnUNet_n_proc_DA"] = str(sweep.processes)
        variables["nnUNet_def_n_proc"] = str(sweep.processes)
    log = folder / LOGS / f"{run.name}.log"
    going_on = (lambda: not children.stopped) if wait else None
    with run_lock(run, folder, going_on) as lock_file:
        argv = run.command(sweep.device)
        if run.state() is State.FINISHED:
            return 0
        return children.run(argv, log, variables, lock_file, slot.cores)


def _failure_reason(code: int, log: Path) -> str:
    tail = log_tail(log)
    if code == -signal.SIGKILL or "exit code -9" in tail or "SIGKILL" in tail:
        return (
            "killed by the system, most likely for memory: take a smaller batch_size or patch, "
            f"or max_parallel: 1; {tail}"
        )
    return f"return code {code}; {tail}"


def run_locally(
    runs: Sequence[Run], sweep: Sweep, folder: Path, on_outcome: Callable[[RunOutcome], None]
) -> list[RunOutcome]:
    """Train runs on this machine, `max_parallel` at a time; a failure does not stop the others.

    Args:
        runs: unfinished runs.
        sweep: how many in parallel, and on what.
        folder: folder of the sweep.
        on_outcome: called with each outcome as it comes.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; the trainings are stopped first. Call again to resume.
    """
    children = ChildProcesses()
    free: Queue[Slot] = Queue()
    for slot in slots(sweep):
        free.put(slot)

    def train(run: Run) -> RunOutcome:
        slot = free.get()
        try:
            outcome = execute(run, sweep, folder, children, slot, wait=True)
        finally:
            free.put(slot)
        if outcome.state is not State.STOPPED:
            on_outcome(outcome)
        return outcome

    with ThreadPoolExecutor(sweep.max_parallel) as pool, stopped_with_us(children):
        futures = [pool.submit(train, run) for run in runs]
        try:
            return [future.result() for future in futures]
        except BaseException:
            children.stop()
            pool.shutdown(cancel_futures=True)
            raise
