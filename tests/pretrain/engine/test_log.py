"""The log of a run on a full disk."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.summary.writer.record_writer import RecordWriter

from nnunet_fm_pretrain.engine.log import RunLog


def test_a_full_disk_under_tensorboard_is_an_error_without_a_traceback_of_its_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write: Callable[[RecordWriter, bytes], None] = RecordWriter.write

    def full(self: RecordWriter, data: bytes) -> None:
        if b"loss" in data:
            raise OSError(28, "No space left on device")
        write(self, data)

    monkeypatch.setattr(RecordWriter, "write", full)
    log = RunLog(tmp_path, 0, 9, 1, 1, active=True)
    with pytest.raises(OSError, match="No space left"):
        for step in range(9):
            log.step(step, {"loss": 1.0}, 0.0)
            log.board.flush()
    with pytest.raises(OSError, match="No space left"):
        log.close()
    assert "Traceback" not in capfd.readouterr().err
