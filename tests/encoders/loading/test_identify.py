"""Identification where an optional package is missing."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers.encoder_files import amaes_names
from nnunet_fm.encoders import build_encoder

WITHOUT_MONAI = "import sys; sys.modules['monai'] = None; import torch; "
LOAD = "from nnunet_fm.encoders import load_encoder; print(load_encoder(sys.argv[1])[1].card)"


def run_without_monai(code: str, *words: str) -> "subprocess.CompletedProcess[str]":
    program = [sys.executable, "-W", "ignore", "-c", WITHOUT_MONAI + code, *words]
    return subprocess.run(program, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("architecture", "file", "card"),
    [
        ("openmind_resencl", "ResEncL-OpenMind-MAE.pth", "openmind_resencl.mae"),
        ("amaes_unetb", "unet_b_lw_dec_fullaug.pth", "amaes_unetb.brains45k"),
    ],
)
def test_a_3d_file_that_needs_no_monai_is_identified_without_it(
    architecture: str, file: str, card: str, tmp_path: Path
) -> None:
    state = build_encoder(architecture).state_dict()
    if architecture.startswith("amaes"):
        state = amaes_names(state)
    torch.save(state, tmp_path / file)
    done = run_without_monai(LOAD, str(tmp_path / file))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [card]


def test_cards_that_were_not_compared_are_named(tmp_path: Path) -> None:
    names = ("vit.patch_embedding.position_embeddings", "vit.blocks.0.weight")
    shapes = ((1, 216, 768), (768, 1, 16, 16, 16))
    state = {name: torch.zeros(shape) for name, shape in zip(names, shapes, strict=True)}
    torch.save(state, tmp_path / "w.pth")
    done = run_without_monai(LOAD, str(tmp_path / "w.pth"))
    assert done.returncode == 1
    assert "Not compared, as monai is not installed: " in done.stderr
    assert "brainiac_vitb16.v2" in done.stderr
    assert "pip install 'nnunet-fm[volume]'" in done.stderr
