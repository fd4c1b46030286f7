"""Exported models predict; what cannot be exported is refused."""

from pathlib import Path

import pytest
import torch

from helpers.hub_server import COMMIT, Repository, serving
from helpers.nnunet import TRAINER, Run, labels_in, predict_words
from nnunet_fm.internal.folders import EXT_TRAINER
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


def test_a_model_on_the_hub_predicts_as_the_original(
    trained: Path, stock_prediction: Path, images: Path, run: Run, tmp_path: Path
) -> None:
    published = tmp_path / "published"
    said = run("nnunet-fm", "export", trained, "--hub", published).stdout
    assert "(fold_0); licence of the encoder's weights: as its author says" in said
    files = {p.relative_to(published).as_posix(): p for p in published.rglob("*") if p.is_file()}
    assert "encoder.safetensors" in files
    contents = {name: path.read_bytes() for name, path in files.items()}
    words = predict_words(images, tmp_path / "p", "-m", "hf://lab/model", "-f", 0)
    with serving({"lab/model": Repository(contents)}) as hub:
        cache = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": str(tmp_path / "cache")}
        said = run("nnunet-fm", "predict", *words, "--precision", "float32", **cache).stdout
    assert f"hf://lab/model@{COMMIT}" in said
    found = labels_in(tmp_path / "p")
    expected = labels_in(stock_prediction)
    assert len(expected) == len(found) > 0
    assert all((found[name] == stock).all() for name, stock in expected.items())


def test_exported_models_predict_without_the_variable(
    trained: Path,
    stock_prediction: Path,
    images: Path,
    run: Run,
    tmp_path: Path,
    encoder_file: Path,
) -> None:
    out = tmp_path / "exported"
    run("nnunet-fm", "export", trained, out)
    assert str(encoder_file.parent) not in (out / "plans.json").read_text()
    content = torch.load(out / "fold_0" / "checkpoint_final.pth", weights_only=False)
    assert (content["trainer_name"], content["trained_with"]) == ("nnUNetTrainer", TRAINER)
    words = predict_words(images, tmp_path / "p", "-m", out, "-f", 0)
    run("nnUNetv2_predict_from_modelfolder", *words, **{EXT_TRAINER: ""})
    ours = labels_in(tmp_path / "p")
    assert all((ours[n] == stock).all() for n, stock in labels_in(stock_prediction).items())
    run("nnunet-fm", "predict", *predict_words(images, tmp_path / "q", "-m", out, "-f", 0))
    assert "not empty" in run("nnunet-fm", "export", trained, out, expect=2).stdout
    run(
        "nnunet-fm", "export", trained, tmp_path / "best", "-chk", "checkpoint_best.pth"
    )  # slim: completed
    best = torch.load(tmp_path / "best" / "fold_0" / "checkpoint_final.pth", weights_only=False)[
        "network_weights"
    ]
    assert all(
        torch.equal(best[k], v)
        for k, v in content["network_weights"].items()
        if k.startswith("encoder.")
    )
    assert (
        "not a trained model folder"
        in run("nnunet-fm", "export", tmp_path, tmp_path / "x", expect=2).stdout
    )
