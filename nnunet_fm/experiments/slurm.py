"""Runs as a SLURM array, through `submitit`.

Keys under `slurm` in the sweep are sbatch's: `partition`, `time`, `mem`, ...
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from submitit import LocalExecutor, SlurmExecutor

from nnunet_fm.experiments.child_processes import ChildProcesses
from nnunet_fm.experiments.config import Sweep
from nnunet_fm.experiments.execute import RunOutcome, execute
from nnunet_fm.experiments.runs import Run
from nnunet_fm.internal.errors import FailedRunError, InputError

JOBS = "slurm"  # folder of a sweep
LOCAL_MINUTES = 7 * 24 * 60  # after which submitit's local executor ends a run


def submit(runs: Sequence[Run], sweep: Sweep, folder: Path, local: bool = False) -> list[Any]:
    """Submit runs as jobs; rerunning the sweep resumes jobs that SLURM terminated.

    Args:
        runs: unfinished runs.
        sweep: resources, and how many runs in parallel.
        folder: folder of the sweep, on a disk that all nodes see.
        local: use submitit's local executor, which needs no SLURM: all runs at once, without a GPU.

    Returns:
        submitit's jobs; `job.result()` is a `RunOutcome`.

    Raises:
        ValueError: a resource that sbatch does not know.
        RuntimeError: there is no SLURM on this machine.
    """
    executor: Any
    if local:
        executor = LocalExecutor(folder / JOBS)
        executor.update_parameters(timeout_min=LOCAL_MINUTES)
    else:
        try:
            executor = SlurmExecutor(folder / JOBS)
        except RuntimeError as error:  # no sbatch
            raise FailedRunError(f"{error}; see --executor for others") from None
        _set_parameters(executor, sweep)
    return list(executor.map_array(_run_job, runs, [sweep] * len(runs), [folder] * len(runs)))


def batch_file(runs: Sequence[Run], sweep: Sweep, folder: Path) -> str:
    """Return the sbatch file that `submit` would submit."""
    executor = _OfflineExecutor(folder / JOBS)
    _set_parameters(executor, sweep)
    executor.parameters["map_count"] = len(runs)
    job = f"{sys.executable} -u -m submitit.core._submit {folder / JOBS}"
    return str(executor._make_submission_file_text(job, "sweep"))


class _OfflineExecutor(SlurmExecutor):
    """Executor that writes the sbatch file on a machine without SLURM."""

    @classmethod
    def affinity(cls) -> int:
        """Claim that SLURM is there."""
        return 1


def _set_parameters(executor: SlurmExecutor, sweep: Sweep) -> None:
    if "time" not in sweep.slurm:  # submitit would ask for 5 minutes
        raise InputError(
            "slurm: no time; give the minutes that the longest run may take, "
            "e.g. slurm='{time: 2880}'"
        )
    parameters = {"job_name": "nnunet-fm", "array_parallelism": sweep.max_parallel, **sweep.slurm}
    try:
        executor.update_parameters(**parameters)
    except (ValueError, TypeError) as error:
        raise InputError(f"slurm: {error}") from None


def _run_job(run: Run, sweep: Sweep, folder: Path) -> RunOutcome:
    return execute(run, sweep, folder, ChildProcesses())
