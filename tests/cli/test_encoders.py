"""`nnunet-fm encoders`."""

from pathlib import Path

import pytest
import torch

from helpers.encoder_files import braindino, official
from nnunet_fm.cli.main import main


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
    assert main(["encoders", "verify", str(tmp_path / "b.pth"), "--encoder", "dinov3_vits16"]) == 2
    error = capsys.readouterr().err
    assert "another shape" in error
    assert "Its tensors are those of dinov3_test16" in error
    assert main(["encoders", "show", "dinov3_vitxl16"]) == 2
    assert "Did you mean dinov3_vitl16" in capsys.readouterr().err
