"""Progress of a training, from nnU-Net's logs."""

import json
from pathlib import Path

import pytest

from nnunet_fm.nnunet.training_log import read_progress


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
