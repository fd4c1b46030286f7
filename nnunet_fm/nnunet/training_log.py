"""How far a training is, from the files that nnU-Net writes while it runs."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

EMA = 0.9  # nnU-Net's share of the former value


@dataclass(frozen=True)
class Progress:
    """Of one training.

    Attributes:
        epoch: epochs that are done.
        epochs: of the trainer; 0 before the first training began.
        ema_dice: nnU-Net's moving average of the pseudo Dice, mean of the classes; NaN before the
            first epoch.
        seconds: of all finished epochs together.
    """

    epoch: int
    epochs: int
    ema_dice: float
    seconds: float

    @property
    def seconds_left(self) -> float:
        """By the mean epoch so far, without the validation at the end; NaN before the first epoch."""
        return (
            (self.epochs - self.epoch) * self.seconds / self.epoch if self.epoch else float("nan")
        )


def _moment(log: Path) -> list[int]:
    """Of the log's name; its numbers have no leading zeros."""
    return [int(n) for n in re.findall(r"\d+", log.name)]


def read_progress(fold: Path) -> Progress:
    """Read the logs of a fold's folder; a continued training has several."""
    debug = fold / "debug.json"
    total = int(json.loads(debug.read_text()).get("num_epochs", 0)) if debug.is_file() else 0
    text = "".join(
        p.read_text(errors="ignore") for p in sorted(fold.glob("training_log_*.txt"), key=_moment)
    )
    done: dict[int, tuple[float, float]] = {}  # by epoch: a killed one is trained again
    for part in re.split(r"(?=: Epoch \d+ *\n)", text):
        number, seconds = (
            re.search(r": Epoch (\d+)", part),
            re.search(r"Epoch time: ([\d.]+) s", part),
        )
        if number and seconds:
            line = re.search(r"Pseudo dice \[(.*)\]", part)
            dices = (
                [float(d) for d in re.findall(r"(\d\.\d+(?:e-?\d+)?|nan)", line.group(1))]
                if line
                else [float("nan")]
            )
            done[int(number.group(1))] = (
                float(seconds.group(1)),
                float(np.nanmean(dices) if np.isfinite(dices).any() else np.nan),
            )
    ema = float("nan")
    for _, dice in (done[n] for n in sorted(done)):
        ema = dice if np.isnan(ema) else EMA * ema + (1 - EMA) * dice
    return Progress(len(done), total, ema, sum(s for s, _ in done.values()))
