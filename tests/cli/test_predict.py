"""`nnunet-fm predict`: nnU-Net's flags and ours."""

from pathlib import Path
from typing import Any

import pytest

from helpers.nnunet import Run
from nnunet_fm.cli.main import main

PASSED_ON = ["--continue_prediction", "-m", ".", "-chk", "x.pth"]


def test_predict_passes_on_nnunets_help(run: Run) -> None:
    output = run("nnunet-fm", "predict", "-h").stdout
    assert "--skip-background" in output
    assert "-prev_stage_predictions" in output


def test_an_unknown_trainer_is_named_with_close_matches(run: Run) -> None:
    output = run(
        "nnunet-fm",
        "predict",
        "-d",
        7,
        "-tr",
        "nnUNetTrainerr",
        "-c",
        "2d",
        "-i",
        "a",
        "-o",
        "b",
        expect=2,
    ).stdout
    assert "Did you mean nnUNetTrainer" in output


def test_our_flags_are_taken_and_nnunets_passed_on_in_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in put").mkdir()
    calls: list[tuple[list[str], dict[str, Any]]] = []
    monkeypatch.setattr(
        "nnunet_fm.nnunet.replace_predictor.predict_with_arguments",
        lambda argv, **options: calls.append((argv, options)),
    )
    words = [
        "-i",
        "in put",
        "--precision",
        "float32",
        "-f",
        "0",
        "1",
        "-o",
        "out",
        "--c",
        "-m",
        ".",
    ]
    assert main(["predict", *words, "--pixels-per-batch", "99", "-chk", "x.pth"]) == 0
    argv, options = calls[0]
    assert argv == ["-i", "in put", "-f", "0", "1", "-o", "out", *PASSED_ON]
    assert (options["precision"], options["pixels_per_batch"]) == ("float32", 99)
    assert options["skip_background"] is False
