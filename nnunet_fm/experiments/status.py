"""The state of a sweep while it runs: one line per run."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nnunet_fm.experiments.execute import OUTCOMES
from nnunet_fm.experiments.run_locks import running_runs
from nnunet_fm.experiments.runs import RUNS, Run, State, read_runs
from nnunet_fm.experiments.templates import render
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.json_files import read_object
from nnunet_fm.nnunet.file_names import SUMMARY_JSON
from nnunet_fm.nnunet.training_log import read_progress

REFRESH_SECONDS = 10
HEAD = ("run", "cases", "state", "epoch", "EMA Dice", "left", "Dice")


@dataclass(frozen=True)
class RunStatus:
    """How far a run has come.

    Attributes:
        run: name of the run.
        folder: its folder in nnUNet_results.
        state: new, running, interrupted, failed or finished.
        epoch: number of finished epochs.
        epochs: number of all epochs; 0 before the training begins.
        ema_dice: nnU-Net's moving average of the pseudo Dice; NaN before the first epoch.
        seconds: duration of the finished epochs.
        seconds_left: estimate for the remaining epochs; NaN before the first epoch.
        dice: mean Dice of the validation; NaN until the run is finished.
        reason: why it failed; else empty.
        train_cases: number of cases that it is trained on; 0 if unknown.
    """

    run: str
    folder: Path
    state: State
    epoch: int
    epochs: int
    ema_dice: float
    seconds: float
    seconds_left: float
    dice: float
    reason: str = ""
    train_cases: int = 0


def read_status(runs: Sequence[Run], folder: Path, running: Sequence[str] = ()) -> list[RunStatus]:
    """Read the state of every run from its files.

    Args:
        runs: runs of a sweep.
        folder: folder of the sweep.
        running: names of the runs that a living process trains, see `running_runs`.
    """
    return [_run_status(run, folder, run.name in running) for run in runs]


def read_status_of_folders(folders: Sequence[Path], runs: Sequence[Run]) -> list[RunStatus]:
    """Read the state of runs from the records of the sweeps that they belong to.

    Args:
        folders: folders of sweeps or of nnU-Net's results, as given to `find_runs`.
        runs: the runs that `find_runs` found in them.

    Returns:
        A status per run, with the run's name in `runs`.
    """
    statuses: dict[Path, RunStatus] = {}
    for folder in folders:
        if (folder / RUNS).is_file():
            for status in read_status(read_runs(folder), folder, running_runs(folder)):
                statuses[status.folder] = status
    others = [run for run in runs if run.folder not in statuses]
    for status in read_status(others, folders[0]):
        statuses[status.folder] = status
    return [replace(statuses[run.folder], run=run.name) for run in runs]


def _run_status(run: Run, folder: Path, is_running: bool) -> RunStatus:
    progress = read_progress(run.folder)
    state = run.state()
    dice = float("nan")
    seconds_left = progress.seconds_left
    reason = ""
    if state is State.FINISHED:
        dice = _validation_dice(run)
        seconds_left = 0.0
    else:
        reason = _failure(run, folder)
    if is_running:
        state = State.RUNNING
        reason = ""
    elif reason:
        state = State.FAILED
    return RunStatus(
        run=run.name,
        folder=run.folder,
        state=state,
        epoch=progress.epoch,
        epochs=progress.epochs,
        ema_dice=progress.ema_dice,
        seconds=progress.seconds,
        seconds_left=seconds_left,
        dice=dice,
        reason=reason,
        train_cases=run.train_cases,
    )


def _validation_dice(run: Run) -> float:
    file = run.folder / SUMMARY_JSON
    try:
        return float(read_object(file)["foreground_mean"]["Dice"])
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{file} is damaged: no foreground_mean.Dice ({error}); validate again with --val"
        ) from None


def _failure(run: Run, folder: Path) -> str:
    """Reason of the failure of a run's last attempt; empty if that did not fail."""
    record = folder / OUTCOMES / f"{run.name}.json"
    if not record.is_file():
        return ""
    outcome = read_object(record)
    return str(outcome.get("reason", "")) if outcome.get("state") == State.FAILED else ""


def cells(status: RunStatus) -> tuple[str, ...]:
    """Return a status as the cells of a table."""
    epoch = f"{status.epoch}/{status.epochs}" if status.epochs else ""
    return (
        status.run,
        str(status.train_cases or ""),
        status.state.value,
        epoch,
        _number(status.ema_dice),
        _duration(status.seconds_left),
        _number(status.dice),
    )


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"


def _duration(seconds: float) -> str:
    if np.isnan(seconds):
        return ""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds else "-"


def status_table(statuses: Sequence[RunStatus]) -> str:
    """Return the table for a terminal, with the number of runs in each state."""
    rows = [HEAD, *(cells(status) for status in statuses)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(HEAD))]
    lines = []
    for row in rows:
        padded = [f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(padded).rstrip())
    counts = Counter(status.state.value for status in statuses)
    lines.append(", ".join(f"{count} {state}" for state, count in counts.items()))
    return "\n".join(lines)


def status_page(statuses: Sequence[RunStatus], title: str) -> str:
    """Return the same table as a self-refreshing HTML page."""
    return render(
        "status.html",
        title=title,
        refresh=REFRESH_SECONDS,
        head=HEAD,
        statuses=statuses,
        cells=cells,
    )
