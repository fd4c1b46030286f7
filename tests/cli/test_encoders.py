"""`nnunet-fm encoders`."""

from pathlib import Path

import pytest
import torch

from helpers.encoder_files import attentive, braindino, flexict, official, without_values
from nnunet_fm.cli.main import main
from nnunet_fm.encoders import LoadReport
from nnunet_fm.encoders.loading.identify import cards_that_fit
from nnunet_fm.encoders.loading.load_report import describe

SMALL = {"width": 24, "depth": 4, "num_heads": 2}


def test_encoders(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["encoders", "list"]) == 0
    assert "braindino_vitb16.mri6m" in capsys.readouterr().out
    assert main(["encoders", "show", "dinov3_vitl16.lvd1689m"]) == 0
    assert "DINOv3 License" in capsys.readouterr().out
    torch.save(braindino(official()), tmp_path / "b.pth")
    assert main(["encoders", "verify", str(tmp_path / "b.pth")]) == 0
    output = capsys.readouterr().out
    assert "containers ['teacher'], prefixes ['backbone.']" in output
    assert "fingerprint   [" in output
    assert "cards         none (have these tensors" in output  # cards of tests are not offered
    assert main(["encoders", "verify", str(tmp_path / "b.pth"), "--encoder", "dinov3_vits16"]) == 2
    error = capsys.readouterr().err
    assert "another shape" in error
    assert "Its tensors are those of dinov3_test16" in error
    assert main(["encoders", "show", "dinov3_vitxl16"]) == 2
    assert "Did you mean dinov3_vitl16" in capsys.readouterr().err


def test_verify_names_all_cards_that_fit_and_what_is_unverified(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    state = attentive("flexict_vit8", **SMALL)
    torch.save({"teacher": flexict(state)}, tmp_path / "ct_2d_teacher.pth")
    words = ["--card", "flexict_vit8.ct2d"]
    for name, value in SMALL.items():
        words += ["--encoder-option", f"{name}={value}"]
    assert main(["encoders", "verify", str(tmp_path / "ct_2d_teacher.pth"), *words]) == 0
    assert "encoder       flexict_vit8.ct2d (flexict_vit8)" in capsys.readouterr().out
    report = LoadReport("f", "0", "c", "a", {}, [], [], "", 1, 1, {}, [], unverified="the axes")
    assert "unverified    the axes" in describe(report)
    assert cards_that_fit(without_values("flexict_vit8")) == [
        "flexict_vit8.ct2d",
        "flexict_vit8.ct3d",
        "flexict_vit8.vlm",
    ]
    assert cards_that_fit(without_values("dinov3dneuro_vitb16")) == ["dinov3dneuro_vitb16.fomo300k"]


def test_the_page_of_weights_is_that_of_the_cards(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encoders", "list", "--markdown"]) == 0
    page = Path(__file__).resolve().parents[2] / "docs" / "weights.md"
    assert capsys.readouterr().out == page.read_text(), (
        "rerun: nnunet-fm encoders list --markdown > docs/weights.md"
    )
