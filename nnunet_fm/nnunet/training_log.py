"""How far a training is, from the files that nnU-Net writes while it runs."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_fm.internal.json_files import read_object
from nnunet_fm.nnunet.file_names import DEBUG_JSON, LOGS
from nnunet_fm.nnunet.run_record import RunRecord

EMA = 0.9  # nnU-Net's weight of the former value in its moving average


@dataclass(frozen=True)
class Progress:
    """How far one training is.

    Attributes:
        epoch: number of finished epochs.
        epochs: that the trainer will run; 0 before the first training began.
        ema_dice: nnU-Net's moving average of the pseudo Dice, mean of the classes; NaN before the
            first epoch has ended.
        seconds: duration of all finished epochs.
    """

    epoch: int
    epochs: int
    ema_dice: float
    seconds: float

    @property
    def seconds_left(self) -> float:
        """Estimate by the mean epoch, without the final validation; NaN before the first epoch."""
        if not self.epoch:
            return float("nan")
        return (self.epochs - self.epoch) * self.seconds / self.epoch


def read_progress(fold: Path) -> Progress:
    """Read the logs of a fold's folder; a resumed training has several."""
    debug = fold / DEBUG_JSON
    total = int(read_object(debug).get("num_epochs", 0)) if debug.is_file() else 0
    seconds: dict[int, float] = {}  # by epoch: one that was interrupted is trained again
    dice: dict[int, float] = {}
    for part in re.split(r"(?=: Epoch \d+ *\n)", _log_text(fold)):
        number = re.search(r": Epoch (\d+)", part)
        duration = re.search(r"Epoch time: ([\d.]+) s", part)
        if number and duration:
            seconds[int(number[1])] = float(duration[1])
            dice[int(number[1])] = _pseudo_dice(part)
    ema = float("nan")
    for epoch in sorted(dice):
        ema = dice[epoch] if np.isnan(ema) else EMA * ema + (1 - EMA) * dice[epoch]
    return Progress(len(seconds), total, ema, sum(seconds[epoch] for epoch in sorted(seconds)))


def read_0_1_record(fold: Path) -> RunRecord:
    """Collect a record from the log of a training by version 0.1, which wrote no `nnunet_fm.json`.

    That version printed three sentences and nothing else reads them; whatever is missing from the
    log keeps the record's default.
    """
    log = _log_text(fold)
    counts = re.search(r"([\d,]+) parameters, ([\d,]+) learn", log)
    sizes = re.findall(r"peak memory: (\d+) bytes \((\w+)\)", log)
    peaks = [(int(size), owner) for size, owner in sizes]
    peak_bytes, peak_owner = max(peaks, default=(0, ""))
    lines = re.findall(r"versions: (.+)", log)
    pairs = [[item.split() for item in line.split(", ")] for line in lines]  # nnU-Net adds a space
    versions = [dict(pair for pair in line if len(pair) == 2) for line in pairs]  # lines may be cut
    return RunRecord(
        versions=tuple(versions),
        parameters=int(counts[1].replace(",", "")) if counts else 0,
        learned_parameters=int(counts[2].replace(",", "")) if counts else 0,
        peak_memory_bytes=peak_bytes,
        peak_memory_of=peak_owner,
    )


def _log_text(fold: Path) -> str:
    logs = sorted(fold.glob(LOGS), key=_start_time)
    return "".join(log.read_text(encoding="utf-8", errors="ignore") for log in logs)


def _start_time(log: Path) -> list[int]:
    """Year to second from a log's name, whose numbers have no leading zeros."""
    return [int(number) for number in re.findall(r"\d+", log.name)]


def _pseudo_dice(log_part: str) -> float:
    """Mean of the classes in one epoch's part of the log; NaN if no class has one."""
    line = re.search(r"Pseudo dice \[(.*)\]", log_part)
    values = re.findall(r"(\d\.\d+(?:e-?\d+)?|nan)", line[1]) if line else []
    dice = np.array([float(value) for value in values])
    return float(np.nanmean(dice)) if np.isfinite(dice).any() else float("nan")
