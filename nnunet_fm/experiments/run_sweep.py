"""Run a sweep from Python, as `nnunet-fm sweep` does.

sweep = read_sweep("lgg.yaml", ["device=cpu"])
outcomes = run_sweep(sweep, Path("sweeps/lgg"))
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from nnunet_fm.experiments.child_processes import run_logged
from nnunet_fm.experiments.config import Sweep
from nnunet_fm.experiments.cost_estimate import Estimate, estimate
from nnunet_fm.experiments.execute import RunOutcome, run_locally
from nnunet_fm.experiments.planner import PlannedSweep, plan_sweep
from nnunet_fm.experiments.run_locks import (
    LOGS,
    PREPROCESSING,
    preprocessing_lock,
    sweep_lock,
)
from nnunet_fm.experiments.runs import Run, State, write_runs
from nnunet_fm.internal.device import missing_device
from nnunet_fm.internal.errors import InputError, StorageError
from nnunet_fm.internal.folders import nnunet_folder

LOG = logging.getLogger(__name__)
Executor = Literal["local", "slurm", "submitit"]
Reporter = Callable[[str], None]


@dataclass(frozen=True)
class PreparedSweep:
    """A sweep that was checked; unless it is a dry run, its plans and list of runs are written.

    Attributes:
        sweep: the sweep.
        folder: its folder, with logs and records.
        planned: its runs and their plans.
    """

    sweep: Sweep
    folder: Path
    planned: PlannedSweep

    @property
    def runs(self) -> list[Run]:
        """All of its runs, finished or not."""
        return self.planned.runs

    @property
    def preprocessing(self) -> list[list[str]]:
        """Commands that have to run before the first training."""
        processes = self.sweep.processes
        words = ["-np", str(processes)] if processes else []
        return [[*argv, *words] for argv in self.planned.preprocessing]

    @property
    def unfinished(self) -> list[Run]:
        """The runs that are left to train, from the beginning or from a checkpoint."""
        return [run for run in self.runs if run.state() is not State.FINISHED]

    def commands(self) -> list[list[str]]:
        """Return all commands that are left to run, in their order."""
        return [*self.preprocessing, *(run.command(self.sweep.device) for run in self.unfinished)]

    @cached_property
    def cost(self) -> Estimate:
        """Hours and gigabytes that the unfinished runs were estimated to need."""
        return estimate(self.runs, self.planned.plans)


def prepare_sweep(
    sweep: Sweep, folder: Path, dry_run: bool = False, elsewhere: bool = False
) -> PreparedSweep:
    """Check a sweep, then write its plans and its list of runs; train nothing.

    Args:
        sweep: the sweep.
        folder: folder for logs and records.
        dry_run: only check; nothing is written.
        elsewhere: another machine will train, so that the devices of this one do not count.

    Raises:
        ValueError, FileNotFoundError: see `plan_sweep`; or this machine has no such device.
    """
    folder = folder.absolute()
    results = nnunet_folder("nnUNet_results")
    planned = plan_sweep(sweep, nnunet_folder("nnUNet_preprocessed"), results)
    prepared = PreparedSweep(sweep, folder, planned)
    if prepared.unfinished and not elsewhere:
        _check_device(sweep)
    if not dry_run:
        planned.write()
        write_runs(planned.runs, folder)
    return prepared


def _check_device(sweep: Sweep) -> None:
    missing = missing_device(sweep.device, sweep.gpus)
    if missing:
        other = "device=cpu or gpus=[0]" if sweep.gpus else "device=cpu"
        raise InputError(
            f"device {sweep.device}: this machine has {missing}; type {other}, or train "
            "elsewhere: --executor slurm, or --print"
        )


def free_gigabytes() -> float:
    """Free disk space in nnUNet_results, or where it will be."""
    results = nnunet_folder("nnUNet_results").absolute()
    existing = next(folder for folder in (results, *results.parents) if folder.exists())
    return shutil.disk_usage(existing).free / 1e9


def run_sweep(
    sweep: Sweep, folder: Path, executor: Executor = "local", report: Reporter = LOG.info
) -> list[RunOutcome]:
    """Prepare a sweep, then preprocess and train what is not finished.

    Args:
        sweep: the sweep, see `read_sweep`.
        folder: folder for logs and records.
        executor: `local`, `slurm`, or submitit's local executor.
        report: called with a line of text for each command and outcome.

    Returns:
        How each run ended; nothing for `slurm`, which trains later.

    Raises:
        OSError: the disk is too small for the checkpoints.
        KeyboardInterrupt: Ctrl-C or SIGTERM; call again to resume.
        BusyError: another sweep writes to the folder.
        ValueError, FileNotFoundError: see `plan_sweep`.
    """
    with sweep_lock(folder):
        prepared = prepare_sweep(sweep, folder, elsewhere=executor == "slurm")
        return train_prepared(prepared, executor, report)


def train_prepared(
    prepared: PreparedSweep, executor: Executor = "local", report: Reporter = LOG.info
) -> list[RunOutcome]:
    """Preprocess and train what is not finished; arguments and errors as `run_sweep`."""
    _check_disk(prepared.cost.gigabytes)
    sweep = prepared.sweep
    for argv in prepared.preprocessing:
        report(f"$ {' '.join(argv)}")
        log = prepared.folder / LOGS / f"{PREPROCESSING}.log"
        run_logged(argv, log, preprocessing_lock(prepared.folder))
    runs = prepared.unfinished
    if executor == "local":
        return run_locally(runs, sweep, prepared.folder, lambda o: report(describe_outcome(o)))
    return _submit(runs, prepared, executor, report)


def _check_disk(needed: float) -> None:
    """Refuse to start where the checkpoints would not fit.

    Args:
        needed: size of the checkpoints in gigabytes.
    """
    free = free_gigabytes()
    if needed > free:
        raise StorageError(
            f"the checkpoints need about {needed:.2g} GB, {nnunet_folder('nnUNet_results')} has "
            f"{free:.2g} GB free; free disk space, or point nnUNet_results to a larger disk"
        )


def _submit(
    runs: Sequence[Run], prepared: PreparedSweep, executor: Executor, report: Reporter
) -> list[RunOutcome]:
    from nnunet_fm.experiments.slurm import submit

    jobs = []
    if runs:
        jobs = submit(runs, prepared.sweep, prepared.folder, local=executor == "submitit")
    report(f"{len(jobs)} jobs: {', '.join(str(job.job_id) for job in jobs)}")
    if executor == "slurm":
        report(f"show their state: nnunet-fm sweep status {prepared.folder}")
        return []
    outcomes = [job.result() for job in jobs]
    for outcome in outcomes:
        report(describe_outcome(outcome))
    return outcomes


def describe_outcome(outcome: RunOutcome) -> str:
    """Return the outcome as a line of text, with the end of the log where a run failed."""
    minutes = outcome.seconds / 60
    line = f"{outcome.run}: {outcome.state.value} after {minutes:.1f} min {outcome.reason}"
    return line.rstrip()
