"""Models as folders for the Hub: they predict the same, say what they are, and hold no pickles."""

import json
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open

from helpers.hub_server import COMMIT, Repository, serving, use_hub
from helpers.trained_model import CASE, TRAINER, make_model, predicted, weight_file
from nnunet_fm.cli.main import main
from nnunet_fm.encoders import load_encoder
from nnunet_fm.internal.files import files_sha256
from nnunet_fm.nnunet.checkpoint_file import read_checkpoint
from nnunet_fm.nnunet.export import export_model
from nnunet_fm.nnunet.publish import publish_model
from nnunet_fm.nnunet.published_model import trained_with
from nnunet_fm.nnunet.run_record import read_record
from nnunet_fm.nnunet.trained_models import with_local_model

FOLD = "fold_0/checkpoint_final.safetensors"
NO_DERIVATIVES = "a derivative of x, to be passed on under its licence: CC BY-NC-ND 4.0"


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model", str(weight_file(tmp_path)))


@pytest.fixture
def published(model: Path, tmp_path: Path) -> Path:
    publish_model(model, tmp_path / "my-model")
    return tmp_path / "my-model"


@pytest.mark.parametrize(
    ("encoder", "change", "is_inside"),
    [
        ("FILE", 0.0, True),
        ("dinov3_test16", 0.0, True),  # random weights
        ("synth_vitt16", 0.0, False),  # bundled
        ("synth_vitt16", 0.01, False),  # fine-tuned: in each fold
        (None, 0.0, False),  # stock nnU-Net
    ],
)
def test_a_published_model_predicts_the_same(
    encoder: str | None, change: float, is_inside: bool, tmp_path: Path
) -> None:
    file = weight_file(tmp_path)
    model = make_model(tmp_path / "model", str(file) if encoder == "FILE" else encoder, change)
    expected = predicted(model)
    hub = tmp_path / "hub"
    publish_model(model, hub)
    file.unlink()
    assert float(expected.std()) > 0.01
    assert torch.equal(predicted(hub), expected)
    names = {"README.md", "config.json", "plans.json", "dataset.json"}
    names |= {f"fold_{n}/{f}" for n in (0, 1) for f in (Path(FOLD).name, "nnunet_fm.json")}
    names |= {"encoder.safetensors"} if is_inside else set()
    assert set(content(hub)) == names
    with safe_open(hub / FOLD, "pt") as stream:
        has_encoder = any(name.startswith("encoder.") for name in stream.keys())  # noqa: SIM118
    assert has_encoder == (change > 0 or encoder is None)  # of stock nnU-Net, its own
    export_model(hub, tmp_path / "stock")
    assert torch.equal(predicted(tmp_path / "stock"), expected)
    again = read_checkpoint(tmp_path / "stock" / "fold_1" / "checkpoint_final.pth")
    assert trained_with(again) == TRAINER


def test_a_published_encoder_is_read_with_its_card(published: Path, tmp_path: Path) -> None:
    _, report = load_encoder(published / "encoder.safetensors")
    _, original = load_encoder(weight_file(tmp_path))
    assert (report.card, report.sha256) == (original.card, original.sha256)
    assert report.about.items() >= original.about.items()


def test_the_card_says_what_the_run_says(published: Path) -> None:
    config = json.loads((published / "config.json").read_text())
    assert config["encoder"]["pretrained_on"] == ["ADNI", "Small"]
    assert config["folds"]["1"] == {"training_cases": 1, "epochs": 2}
    assert config["trainer"] == TRAINER
    assert (config["spacing_mm"], config["dataset"]["cases"]) == ([1.0, 1.5], 3)
    assert all(files_sha256([published / name]) == h for name, h in config["files"].items())
    card = ModelCard.load(published / "README.md")
    assert (card.data.license, card.data.license_name) == ("other", "cc-by-nc-4.0")
    assert (card.data.library_name, card.data.pipeline_tag) == ("nnunet-fm", "image-segmentation")
    results = {r.metric_name: r.metric_value for r in card.data.eval_results}
    assert results == {"Dice, whole tumor": 0.7, "IoU, whole tumor": 0.35}  # of all three cases
    assert "| 0 | whole tumor | 2 | 0.6000 | 0.3000 |" in card.text
    assert "non-commercial use only" in card.text
    assert "12 subjects of ADNI, Small. Keep them out of every test set" in card.text
    assert "Dataset007_Small may be a part of Small" in card.text
    assert config["files"][FOLD] in card.text
    assert "nnunet-fm predict -m hf://OWNER/my-model -i INPUT -o OUTPUT -f 0 1" in card.text
    assert "`CASE_0001.nii.gz` (FLAIR)" in card.text


def test_no_case_and_no_folder_is_named(published: Path, tmp_path: Path) -> None:
    for name, found in content(published).items():
        assert CASE.encode() not in found, name
        assert str(tmp_path).encode() not in found, name
    record = read_record(published / "fold_0")
    assert record is not None
    assert record.encoder == "dinov3_test16 from my encoder.safetensors"
    assert record.orientations == ("LPS",)


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        (None, "# hub\n\nA segmentation model of nnU-Net, trained on\nDataset007_Small (trainer"),
        ("dinov3_test16", "of the encoder**: none, its weights are random"),
        ("synth_vitt16", "frozen; weights: the bundled weights; SHA-256 of its tensors"),
    ],
)
def test_the_card_of_other_encoders(encoder: str | None, said: str, tmp_path: Path) -> None:
    publish_model(make_model(tmp_path / "model", encoder), tmp_path / "hub")
    card = ModelCard.load(tmp_path / "hub" / "README.md")
    assert said in card.text
    assert card.data.license is None  # passes nothing of others on
    assert "not stated yet. Before uploading" in card.text


def test_scores_that_are_not_of_this_checkpoint_and_unseen_cases_are_left_out(
    model: Path, tmp_path: Path
) -> None:
    (model / "fold_0").rename(model / "fold_all")  # validates the cases that it was trained on
    record = model / "fold_1" / "nnunet_fm.json"
    record.write_text(record.read_text().replace("checkpoint_final.pth", "checkpoint_best.pth"))
    publish_model(model, tmp_path / "hub")
    card = ModelCard.load(tmp_path / "hub" / "README.md")
    assert card.data.eval_results is None
    assert "## Results\n\nThere are none: the folds were not validated" in card.text


@pytest.mark.parametrize("licence", [NO_DERIVATIVES, "none found"])
def test_weights_that_may_not_be_passed_on(
    licence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model(tmp_path / "model", str(weight_file(tmp_path, licence)))
    words = ["export", str(model), "--hub", str(tmp_path / "hub")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("nnunet-fm: these weights are those of dinov3_test16, whose licence is")
    assert licence in said
    assert "type --i-have-permission" in said
    assert not (tmp_path / "hub").exists()
    assert main([*words, "--i-have-permission"]) == 0
    assert f"hf upload OWNER/hub {tmp_path / 'hub'}" in capsys.readouterr().out
    assert "only with the permission of the owners" in (tmp_path / "hub/README.md").read_text()


def test_a_fine_tuned_encoder_is_a_derivative(tmp_path: Path) -> None:
    file = weight_file(tmp_path, "CC BY-ND 4.0")
    model = make_model(tmp_path / "model", str(file), change=0.01)
    with pytest.raises(ValueError, match=r"those of dinov3_test16, whose licence is: CC BY-ND"):
        publish_model(model, tmp_path / "hub")
    publish_model(model, tmp_path / "hub", permitted=True)
    config = json.loads((tmp_path / "hub" / "config.json").read_text())
    assert config["encoder"]["licence"].startswith("a derivative of dinov3_test16")
    assert config["encoder"]["licence"].count("derivative") == 1


def test_a_licence_that_only_a_missing_file_states_is_unknown(model: Path, tmp_path: Path) -> None:
    (tmp_path / "my encoder.safetensors").unlink()
    with pytest.raises(ValueError, match=r"not stated, as its file my encoder\.safetensors is mis"):
        publish_model(model, tmp_path / "hub")


def test_what_was_not_published_so_is_refused(published: Path) -> None:
    good = (published / FOLD).read_bytes()
    (published / FOLD).write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"is not the file that config\.json beside it describes"):
        predicted(published)
    (published / FOLD).write_bytes(good)
    plans = (published / "plans.json").read_text()
    (published / "plans.json").write_text(
        plans.replace("nnunet_fm.network.FrozenEncoderNetwork", "os.system")
    )
    with pytest.raises(ValueError, match=r"plans\.json names the network os\.system; allowed"):
        predicted(published)
    (published / "plans.json").write_text(plans)
    (published / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json does not exist; download or export"):
        predicted(published)


def test_a_model_of_the_hub(
    published: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    repositories = {
        "lab/model": Repository(content(published) | {"old.pth": b"x"}),
        "lab/none": Repository({"a.txt": b"x"}),
    }
    with serving(repositories) as hub:
        use_hub(monkeypatch, hub.endpoint, tmp_path / "cache")
        words = with_local_model(["-i", "a", "-m", "hf://lab/model", "-f", "0"])
        folder = Path(words[3])
        assert words == ["-i", "a", "-m", str(folder), "-f", "0"]
        assert f"hf://lab/model@{COMMIT}: licence cc-by-nc-4.0" in caplog.text
        assert content(folder) == content(published)
        hub.asked.clear()
        assert with_local_model(["-m", f"hf://lab/model@{COMMIT}"])[1] == str(folder)
        assert hub.asked == []  # a commit in the cache needs no network
        with pytest.raises(
            ValueError, match=r"lab/none@a+ is no model of `nnunet-fm export --hub`"
        ):
            with_local_model(["-m", "hf://lab/none"])
        hub.failing = True
        assert with_local_model(["-m", "hf://lab/model"])[1] == str(folder)
        with pytest.raises(FileNotFoundError, match="its cache does not have the whole folder"):
            with_local_model(["-m", "hf://lab/other"])
    assert torch.equal(predicted(folder), predicted(published))


def test_an_encoder_of_the_hub_stays_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = weight_file(tmp_path, NO_DERIVATIVES).read_bytes()
    with serving({"lab/brain": Repository({"model.safetensors": weights})}) as hub:
        use_hub(monkeypatch, hub.endpoint, tmp_path / "cache")
        model = make_model(tmp_path / "model", "hf://lab/brain")
        publish_model(model, tmp_path / "hub")  # passes nothing on
        hub.asked.clear()
        assert torch.equal(predicted(tmp_path / "hub"), predicted(model))
    assert not (tmp_path / "hub" / "encoder.safetensors").exists()
    text = (tmp_path / "hub" / "README.md").read_text()
    assert f"weights: hf://lab/brain@{COMMIT}/model.safetensors" in text
    assert re.search("needs, but does not contain, weights of the encoder.*CC BY-NC-ND", text)


def test_where_to_write_is_said_once(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    for words, message in (
        ([], "one of the arguments out --hub is required"),
        ([out, "--hub", out], "not allowed with argument"),
        ([out, "--i-have-permission"], "--i-have-permission is for --hub"),
        (["--hub", out], "is a folder for the Hub already; copy it"),
        (["--hub", str(published)], "my-model is not empty"),
        (["--hub", str(tmp_path / "my model")], "'my model' is no name of a model on the Hub"),
    ):
        assert main(["export", str(published), *words]) == 2
        assert message in capsys.readouterr().err
