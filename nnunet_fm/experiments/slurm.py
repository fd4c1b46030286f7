"""Runs as a SLURM array through `submitit`; keys under `slurm` are sbatch's: `partition`, `time`, `mem`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from submitit import LocalExecutor, SlurmExecutor

from nnunet_fm.experiments.config import Sweep
from nnunet_fm.experiments.execute import Children, Outcome, execute
from nnunet_fm.experiments.runs import Run
from nnunet_fm.internal.errors import InputError

JOBS = "slurm"
MINUTES = 7 * 24 * 60  # after which submitit's local executor ends a run


def submit(runs: Sequence[Run], sweep: Sweep, folder: Path, here: bool = False) -> list[Any]:
    """Hand the runs over; a job that SLURM ends is gone on with by the next call of the sweep.

    Args:
        runs: that are not finished.
        sweep: resources, and how many at a time.
        folder: of the sweep, on a disk that all nodes see.
        here: use submitit's local executor, which needs no SLURM: all runs at once, without a GPU.

    Returns:
        submitit's jobs.

    Raises:
        ValueError: a resource that sbatch does not know.
        RuntimeError: there is no SLURM on this machine.
    """
    if here:
        executor: Any = LocalExecutor(folder / JOBS)
        executor.update_parameters(timeout_min=MINUTES)
    else:
        executor = _parametrised(SlurmExecutor(folder / JOBS), sweep)
    return list(executor.map_array(_run, runs, [sweep] * len(runs), [folder] * len(runs)))


def batch_file(runs: Sequence[Run], sweep: Sweep, folder: Path) -> str:
    """The sbatch file that `submit` would hand over."""
    executor = _parametrised(_Offline(folder / JOBS), sweep)
    executor.parameters["map_count"] = len(runs)
    return str(
        executor._make_submission_file_text(
            f"{sys.executable} -u -m submitit.core._submit {folder / JOBS}", "sweep"
        )
    )


class _Offline(SlurmExecutor):
    """To write the file on a machine without SLURM."""

    @classmethod
    def affinity(cls) -> int:
        """Fits, always."""
        return 1


def _parametrised(executor: SlurmExecutor, sweep: Sweep) -> SlurmExecutor:
    if "time" not in sweep.slurm:  # or submitit asks for 5 minutes
        raise InputError(
            "slurm: no time; give the minutes that the longest run may take, e.g. slurm='{time: 2880}'"
        )
    try:
        executor.update_parameters(
            **{"job_name": "nnunet-fm", "array_parallelism": sweep.at_a_time, **sweep.slurm}
        )
    except (ValueError, TypeError) as error:
        raise InputError(f"slurm: {error}") from None
    return executor


def _run(run: Run, sweep: Sweep, folder: Path) -> Outcome:
    return execute(run, sweep, folder, Children())
