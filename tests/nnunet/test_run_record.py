"""The record of a training: written, read, and read from what version 0.1 left."""

import json
from pathlib import Path

import pytest

from helpers.runs import LOG
from nnunet_fm.nnunet.run_record import RECORD, RunRecord, read_record, write_record
from nnunet_fm.nnunet.training_log import read_0_1_record

OLD = {"nnunet-fm": "0.1.0", "torch": "2.9.0"}
NEW = {"nnunet-fm": "0.2.0", "torch": "2.9.1"}
FULL = RunRecord(
    versions=(OLD, NEW),
    parameters=1000,
    learned_parameters=600,
    encoder="tiny from e.pth",
    encoder_sha256="ab" * 32,
    precision="bfloat16",
    device="cpu",
    gradient_checkpointing=True,
    peak_memory_bytes=2**31,
    peak_memory_of="process",
    epochs=100,
    epoch_seconds=(30.0, 12.5),
)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    write_record(FULL, tmp_path)
    assert read_record(tmp_path) == FULL
    content = json.loads((tmp_path / RECORD).read_text())
    assert (content["epochs_done"], content["total_seconds"]) == (2, 42.5)
    assert [p.name for p in tmp_path.iterdir()] == [RECORD]


def test_sets_of_versions_as_text() -> None:
    assert FULL.versions_text == "nnunet-fm 0.1.0, torch 2.9.0, then nnunet-fm 0.2.0, torch 2.9.1"
    assert RunRecord().versions_text == ""


def test_keys_of_later_versions_are_ignored_and_missing_ones_have_defaults(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text('{"parameters": 5, "of_a_later_version": 1}')
    assert read_record(tmp_path) == RunRecord(parameters=5)


@pytest.mark.parametrize("text", ["", "[1]", '{"epoch_seconds": 3}'])
def test_a_damaged_record_is_a_user_error(text: str, tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(ValueError, match=r"nnunet_fm.json is not a run record"):
        read_record(tmp_path)


def test_logs_of_version_0_1_give_a_record(tmp_path: Path) -> None:
    assert read_0_1_record(tmp_path) == RunRecord()
    log = LOG.replace("\n", " \n")  # nnU-Net ends lines with a space
    (tmp_path / "training_log_2026_1_1.txt").write_text(log)
    (tmp_path / "training_log_2026_1_2.txt").write_text(log.replace("0.1.0", "0.1.1"))
    record = read_0_1_record(tmp_path)
    assert (record.parameters, record.learned_parameters) == (1000, 600)
    assert (record.peak_memory_bytes, record.peak_memory_of) == (2**31, "process")
    assert record.versions[0]["timm"] == "1.0.22"
    assert ", then nnunet-fm 0.1.1" in record.versions_text
