"""The command line: quick help, plain errors, and what each small command prints."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from helpers.encoder_files import braindino, official
from helpers.nnunet import Run
from nnunet_fm.cli.main import main
from nnunet_fm.internal.folders import folder


def test_help_answers_without_torch() -> None:
    program = (
        "import sys, nnunet_fm.cli.main as c; c.build_parser(); sys.exit('torch' in sys.modules)"
    )
    started = time.monotonic()
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
    assert time.monotonic() - started < 5


def test_info_gives_the_papers_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            ["info", "--encoder", "braindino_vitb16", "--channels", "4", "--classes", "3", "--json"]
        )
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert (found["total"], found["encoder"], found["trainable"]) == (110718735, 85641984, 25076751)
    assert found["decoder_flops"] == pytest.approx(38.7e9, rel=0.01)
    assert found["encoder_flops"] == pytest.approx(45e9, rel=0.06)


def test_encoders(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["encoders", "list"]) == 0
    assert "braindino_vitb16.mri6m" in capsys.readouterr().out
    assert main(["encoders", "show", "dinov3_vitl16.lvd1689m"]) == 0
    assert "DINOv3 License" in capsys.readouterr().out
    torch.save(braindino(official()), tmp_path / "b.pth")
    assert main(["encoders", "verify", str(tmp_path / "b.pth")]) == 0
    said = capsys.readouterr().out
    assert "containers ['teacher'], prefixes ['backbone.']" in said
    assert "fingerprint   [" in said
    assert main(["encoders", "verify", str(tmp_path / "b.pth"), "--encoder", "dinov3_vits16"]) == 2
    error = capsys.readouterr().err
    assert "another shape" in error
    assert "Its tensors are those of dinov3_test16" in error
    assert main(["encoders", "show", "dinov3_vitxl16"]) == 2
    assert "Did you mean dinov3_vitl16" in capsys.readouterr().err


def test_path_and_run(run: Run) -> None:
    assert (
        run("nnunet-fm", "path", nnUNet_extTrainer="/mine").stdout.strip()
        == f"/mine:{folder('trainers')}"
    )
    said = run(
        "nnunet-fm",
        "run",
        sys.executable,
        "-c",
        "import os; print(os.environ['nnUNet_extTrainer'])",
    ).stdout
    assert said.strip() == str(folder("trainers"))
    assert "no command" in run("nnunet-fm", "run", "nnUNetv3_train", expect=2).stdout
    assert run("nnunet-fm", "run", sys.executable, "-c", "raise SystemExit(7)", expect=7)


def test_predict_passes_on_nnunets_help(run: Run) -> None:
    said = run("nnunet-fm", "predict", "-h").stdout
    assert "--skip-background" in said
    assert "-prev_stage_predictions" in said


def test_an_unknown_trainer_is_named_with_close_matches(run: Run) -> None:
    said = run(
        "nnunet-fm", "run", "nnUNetv2_train", 7, "2d", 0, "-tr", "FrozenDynoTrainer", expect=2
    ).stdout
    assert "Did you mean FrozenDinoTrainer" in said
    said = run(
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
    assert "Did you mean nnUNetTrainer" in said


def test_doctor(run: Run, nnunet: dict[str, str]) -> None:
    said = run("nnunet-fm", "doctor").stdout
    assert "ok    nnunetv2 2." in said
    assert "FAIL" not in said
    said = run(
        "nnunet-fm", "doctor", expect=1, nnUNet_extTrainer="", nnUNet_results="/nowhere"
    ).stdout
    assert 'fix: export nnUNet_extTrainer="$(nnunet-fm path)"' in said
    assert "mkdir -p '/nowhere'" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan", "-d", "7", "--encoder", "dinov3_test16"], "export nnUNet_preprocessed="),
        (["convert", "brats", "gone", "-d", "5", "-n", "X"], "export nnUNet_raw="),
        (["evaluate", "gone", "gone", "--regions", "brats"], "is no folder"),
        (["evaluate", "gone", "gone"], "--regions brats"),
        (["info", "--encoder", "dinov3_test16", "--patch", "250", "256"], "nearest possible"),
    ],
)
def test_errors_are_one_message(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.delenv(name, raising=False)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
