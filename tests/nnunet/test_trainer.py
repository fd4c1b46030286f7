"""The trainer of frozen encoders inside stock nnU-Net."""

import json
import re
from importlib.metadata import version
from pathlib import Path

import torch

from helpers.encoder_files import braindino, official
from helpers.nnunet import (
    CONFIGURATION,
    DATASET,
    TRAINER,
    Run,
    log_of,
    train_words,
)


def test_training_validates_and_logs_what_it_does(trained: Path) -> None:
    log = log_of(trained)
    assert "encoder dinov3_test16.trained from" in log
    assert "the forward pass keeps " in log
    assert "gradient checkpointing on" not in log
    assert "Mean Validation Dice" in log
    assert re.search(r"[\d,]+ parameters, [\d,]+ learn", log)
    assert f"versions: nnunet-fm {version('nnunet-fm')}, nnunetv2 {version('nnunetv2')}" in log
    assert 50e6 < int(re.search(r"peak memory: (\d+) bytes \(process\)", log).group(1)) < 50e9
    summary = json.loads((trained / "fold_0" / "validation" / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == 2
    assert sorted(p.name for p in (trained / "fold_0").glob("*.pth")) == [
        "checkpoint_best.pth",
        "checkpoint_final.pth",
    ]


def test_a_finished_run_is_validated_without_its_encoder_file(
    trained: Path, run: Run, encoder_file: Path
) -> None:
    encoder_file.rename(encoder_file.with_suffix(".moved"))
    try:
        assert "Mean Validation Dice" in run(*train_words(TRAINER), "--val").stdout
        assert "is missing" in run(*train_words(TRAINER, fold=3), expect=1).stdout
    finally:
        encoder_file.with_suffix(".moved").rename(encoder_file)


def test_a_changed_encoder_file_is_noticed(trained: Path, run: Run, encoder_file: Path) -> None:
    original = encoder_file.read_bytes()
    changed = official()
    changed["norm.weight"] = changed["norm.weight"] * 1.01
    torch.save(braindino(changed), encoder_file)
    try:
        said = run(*train_words(TRAINER), "--c", expect=1).stdout
        assert "the encoder changed" in said
        assert "nnunet-fm plan" in said
    finally:
        encoder_file.write_bytes(original)


def test_stock_configurations_are_refused_by_frozen_trainers(planned: Path, run: Run) -> None:
    said = run(*train_words(TRAINER, "2d", "nnUNetPlans", 3), expect=1).stdout
    assert "needs a configuration written by `nnunet-fm plan`" in said


def test_learnable_then_fixed_switches_in_training(
    planned: Path, run: Run, nnunet: dict[str, str]
) -> None:
    run(
        *(
            "nnunet-fm",
            "plan",
            "-d",
            7,
            "--encoder",
            "dinov3_test16",
            "--patch",
            48,
            "--batch-size",
            2,
        ),
        *("--fusion", "learnable_then_fixed(1)", "-o", "FM_switch", "--decoder", "light"),
    )
    run(*train_words(TRAINER, plans="FM_switch"))
    log = log_of(
        Path(nnunet["nnUNet_results"]) / DATASET / f"{TRAINER}__FM_switch__{CONFIGURATION}"
    )
    assert log.index("Epoch 0") < log.index("fusion is fixed from here on") < log.index("Epoch 1")
