"""The record that a training writes of itself."""

from pathlib import Path

import pytest

from helpers.nnunet import log_of
from nnunet_fm.nnunet.run_record import read_record
from nnunet_fm.nnunet.training_log import read_progress


def test_a_training_records_what_it_was_made_with(trained: Path) -> None:
    record = read_record(trained / "fold_0")
    log = log_of(trained)
    assert f"{record.parameters:,} parameters, {record.learned_parameters:,} learn" in log
    assert f"peak memory: {record.peak_memory_bytes} bytes (process)" in log
    assert f"versions: {record.versions_text}" in log
    assert f"encoder {record.encoder}, tensor hash {record.encoder_sha256[:12]}" in log
    assert f"precision {record.precision} (" in log
    assert (record.device, record.gradient_checkpointing) == ("cpu", False)
    assert (record.epochs, record.epochs_done) == (2, 2)
    progress = read_progress(trained / "fold_0")
    assert record.total_seconds == pytest.approx(progress.seconds, abs=0.02)
