"""What a sweep looks like while it runs: a line per run."""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_fm.experiments.execute import OUTCOMES
from nnunet_fm.experiments.runs import Run, State
from nnunet_fm.nnunet.training_log import read_progress

REFRESH = 10  # seconds


@dataclass(frozen=True)
class Line:
    """One run: its folder, state (`new`, `running`, `interrupted`, `failed`, `finished`), epochs, Dice and time."""

    run: str
    folder: Path
    state: str
    epoch: int
    epochs: int
    ema_dice: float
    seconds: float
    seconds_left: float
    dice: float
    reason: str = ""


def read_status(runs: Sequence[Run], folder: Path, running: Sequence[str] = ()) -> list[Line]:
    """Look at the files of every run.

    Args:
        runs: of the sweep.
        folder: of the sweep.
        running: names of the runs whose process is alive.
    """
    return [_line(run, folder, run.name in running) for run in runs]


def _line(run: Run, folder: Path, running: bool) -> Line:
    progress, state, reason, dice = read_progress(run.folder), run.state(), "", float("nan")
    word = "running" if running else state.value
    outcome = folder / OUTCOMES / f"{run.name}.json"
    if state is State.FINISHED:
        dice = float(
            json.loads((run.folder / "validation" / "summary.json").read_text())["foreground_mean"][
                "Dice"
            ]
        )
    elif not running and outcome.is_file():
        ended = json.loads(outcome.read_text())
        if ended["state"] == "failed":
            word, reason = "failed", ended["reason"]
    left = progress.seconds_left if state is not State.FINISHED else 0.0
    return Line(
        run.name,
        run.folder,
        word,
        progress.epoch,
        progress.epochs,
        progress.ema_dice,
        progress.seconds,
        left,
        dice,
        reason,
    )


HEAD = ("run", "state", "epoch", "EMA Dice", "left", "Dice")


def cells(line: Line) -> tuple[str, ...]:
    """A line as words."""
    epoch = f"{line.epoch}/{line.epochs}" if line.epochs else ""
    return (
        line.run,
        line.state,
        epoch,
        _number(line.ema_dice),
        _time(line.seconds_left),
        _number(line.dice),
    )


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"


def _time(seconds: float) -> str:
    if np.isnan(seconds):
        return ""
    return (
        f"{seconds / 3600:.1f} h"
        if seconds >= 3600
        else f"{seconds / 60:.0f} min"
        if seconds
        else "-"
    )


def table(lines: Sequence[Line]) -> str:
    """For a terminal."""
    rows = [HEAD, *(cells(line) for line in lines)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(HEAD))]
    text = [
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    counts = {
        state: sum(line.state == state for line in lines)
        for state in dict.fromkeys(line.state for line in lines)
    }
    return "\n".join([*text, ", ".join(f"{count} {state}" for state, count in counts.items())])


def page(lines: Sequence[Line], title: str) -> str:
    """The same as a page that loads itself anew."""
    head = "".join(f"<th>{name}</th>" for name in HEAD)
    body = "".join(
        f'<tr class="{line.state}">'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells(line))
        + "</tr>"
        for line in lines
    )
    reasons = "".join(
        f"<h2>{html.escape(x.run)}</h2><pre>{html.escape(x.reason)}</pre>"
        for x in lines
        if x.reason
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="{REFRESH}">'
        f"<title>{html.escape(title)}</title><style>body{{font:15px sans-serif;margin:2em}}td,th{{padding:.2em 1em;"
        "text-align:left;border-bottom:1px solid #ccc}.failed td{color:#b33}.running td{font-weight:bold}</style>"
        f"<h1>{html.escape(title)}</h1><table><tr>{head}</tr>{body}</table>{reasons}</html>"
    )
