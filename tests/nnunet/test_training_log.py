"""How far a training is, by nnU-Net's own log."""

import json
import math
from pathlib import Path

import pytest

from nnunet_fm.nnunet.training_log import read_progress

EPOCH = """2026-01-01 00:00:00: Epoch {number}
2026-01-01 00:00:00: Pseudo dice [{dice}]
2026-01-01 00:00:00: Epoch time: {seconds} s
"""


def test_nothing_is_known_before_the_first_epoch(tmp_path: Path) -> None:
    progress = read_progress(tmp_path)
    assert (progress.epoch, progress.epochs, progress.seconds) == (0, 0, 0)
    assert math.isnan(progress.ema_dice)
    assert math.isnan(progress.seconds_left)


def test_a_resumed_epoch_counts_once(tmp_path: Path) -> None:
    (tmp_path / "debug.json").write_text('{"num_epochs": "4"}')
    first = EPOCH.format(number=0, dice="np.float32(0.5), np.float32(0.7)", seconds=10.0)
    killed = EPOCH.format(number=1, dice="0.1, 0.1", seconds=99.0)
    again = EPOCH.format(number=1, dice="0.8, nan", seconds=20.0)
    (tmp_path / "training_log_2026_1_9_1_1_1.txt").write_text(first + killed)
    (tmp_path / "training_log_2026_1_10_1_1_1.txt").write_text(again)
    progress = read_progress(tmp_path)
    assert (progress.epoch, progress.epochs, progress.seconds) == (2, 4, 30.0)
    assert progress.ema_dice == pytest.approx(0.9 * 0.6 + 0.1 * 0.8)
    assert progress.seconds_left == 30.0


def test_progress_is_read_from_nnunet_s_logs(tmp_path: Path) -> None:
    (tmp_path / "debug.json").write_text(json.dumps({"num_epochs": "10"}))
    lines = []
    for epoch, dice in ((0, 0.5), (1, 0.7), (1, 0.6)):  # epoch 1 again after a kill
        lines += [
            f"2026-01-01 00:00:00: Epoch {epoch} ",
            f"2026: Pseudo dice [np.float32({dice}), np.float32({dice})] ",
        ]
        lines += ["2026: Epoch time: 20.0 s "]
    lines += ["2026: Epoch 2 ", "2026: Current learning rate: 0.1 "]
    (tmp_path / "training_log_2026_1.txt").write_text("\n".join(lines))
    found = read_progress(tmp_path)
    assert (found.epoch, found.epochs, found.seconds) == (2, 10, 40)
    assert found.ema_dice == pytest.approx(0.9 * 0.5 + 0.1 * 0.6)
    assert found.seconds_left == 160
    assert read_progress(tmp_path / "none").epoch == 0
