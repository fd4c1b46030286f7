"""Estimate the cost of a sweep: hours from finished epochs, disk from trainable parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_fm.experiments.runs import Run, State
from nnunet_fm.nnunet.checkpoint_size import checkpoint_bytes
from nnunet_fm.nnunet.planning import NewPlans
from nnunet_fm.nnunet.training_log import Progress, read_progress

CHECKPOINTS = 2  # the best one and the last
Kind = tuple[str, str, str]  # dataset, encoder, configuration: runs of one kind cost the same


@dataclass(frozen=True)
class Estimate:
    """What the unfinished runs of a sweep will cost.

    Attributes:
        hours: one run after the other, without validation; NaN while no run of one of the encoders
            has finished an epoch.
        gigabytes: disk space for checkpoints.
    """

    hours: float
    gigabytes: float


def estimate(runs: Sequence[Run], plans: Mapping[tuple[str, str], NewPlans]) -> Estimate:
    """Estimate the hours and gigabytes that the unfinished runs still need.

    Args:
        runs: all runs of the sweep.
        plans: their plans, by dataset and identifier.
    """
    progress = {run: read_progress(run.folder) for run in runs}
    sizes: dict[Kind, int] = {}
    seconds = 0.0
    size = 0
    for run in runs:
        if run.state() is State.FINISHED:
            continue
        kind = _kind(run)
        started = [p for other, p in progress.items() if p.epoch and _kind(other) == kind]
        seconds += _seconds_left(progress[run], started)
        if kind not in sizes:
            of_run = plans[run.dataset, run.plans]
            sizes[kind] = CHECKPOINTS * checkpoint_bytes(
                of_run.path.parent, of_run.content, run.configuration
            )
        size += max(0, sizes[kind] - _saved_bytes(run))
    return Estimate(seconds / 3600, size / 1e9)


def _seconds_left(own: Progress, started: Sequence[Progress]) -> float:
    """Estimate the rest of a training from the epochs of all started runs of its kind."""
    if not started:
        return float("nan")
    per_epoch = sum(p.seconds for p in started) / sum(p.epoch for p in started)
    return per_epoch * (max(p.epochs for p in started) - own.epoch)


def _saved_bytes(run: Run) -> int:
    """Size of the checkpoints that a run has already."""
    return sum(p.stat().st_size for p in run.folder.glob("checkpoint_*.pth"))


def _kind(run: Run) -> Kind:
    return run.dataset, run.encoder, run.configuration


def describe_estimate(cost: Estimate, max_parallel: int) -> str:
    """Return the estimate as text for the user."""
    time = "hours are known after the first epoch of each encoder"
    if not np.isnan(cost.hours):
        time = f"about {cost.hours / max_parallel:.1f} h, {max_parallel} at a time"
    return f"{time}; checkpoints about {cost.gigabytes:.2g} GB"
