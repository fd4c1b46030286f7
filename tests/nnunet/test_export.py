"""What cannot be exported is refused; exports that predict are in test_trainer.py."""

from pathlib import Path

import pytest
import torch

from nnunet_fm.nnunet.export import export_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    fold = tmp_path / "model" / "fold_0"
    fold.mkdir(parents=True)
    (fold.parent / "plans.json").write_text('{"configurations": {}}')
    torch.save({"network_weights": {}}, fold / "checkpoint_final.pth")
    return fold.parent


def test_a_damaged_checkpoint_is_one_message(model: Path, tmp_path: Path) -> None:
    file = model / "fold_0" / "checkpoint_final.pth"
    with pytest.raises(ValueError, match="is not a checkpoint of nnU-Net; name another one"):
        export_model(model, tmp_path / "out")
    for content in (file.read_bytes()[:100], b"nothing", b""):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="damaged or not a checkpoint .*; restore it"):
            export_model(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_not_a_model_folder_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a trained model folder"):
        export_model(tmp_path, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"no fold of .* has a checkpoint_best\.pth"):
        export_model(model, tmp_path / "out", "checkpoint_best.pth")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").touch()
    with pytest.raises(FileExistsError, match="is not empty"):
        export_model(model, tmp_path / "out")
