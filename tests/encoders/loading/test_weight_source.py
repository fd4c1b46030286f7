"""The source of an encoder's weights: resolved once, written to plans and read from them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.encoder_files import braindino, official
from nnunet_fm.encoders import CheckpointError, EncoderSource, tensors_sha256
from nnunet_fm.encoders.loading import load as loading
from nnunet_fm.encoders.loading import weight_source
from nnunet_fm.features.opening import open_encoder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save(braindino(official()), tmp_path / "braindino.pth")
    return tmp_path / "braindino.pth"


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often a file was read and tensors were hashed."""
    counted = {"read": 0, "hashed": 0}
    read, sha256 = loading.read_tensors, loading.tensors_sha256

    def counting_read(path: Path) -> Any:
        counted["read"] += 1
        return read(path)

    def counting_sha256(state: Any) -> str:
        counted["hashed"] += 1
        return sha256(state)

    monkeypatch.setattr(loading, "read_tensors", counting_read)
    for module in (loading, weight_source):
        monkeypatch.setattr(module, "tensors_sha256", counting_sha256)
    return counted


def test_plans_hold_what_they_held_before(file: Path) -> None:
    trained = EncoderSource.resolve(str(file)).to_plans()
    assert list(trained) == ["encoder", "encoder_options", "encoder_source"]
    assert list(trained["encoder_source"]) == ["file", "card", "sha256"]
    assert trained["encoder_source"]["file"] == str(file)
    random = EncoderSource.resolve("dinov3_test16", seed=3).to_plans()
    assert list(random["encoder_source"]) == ["seed", "card", "sha256"]
    assert random["encoder_source"]["seed"] == 3
    bundled = EncoderSource.resolve("synth_vitt16").to_plans()
    assert list(bundled["encoder_source"]) == ["card", "sha256"]


@pytest.mark.parametrize("given", ["FILE", "dinov3_test16", "synth_vitt16"])
def test_what_plans_name_is_loaded_again(given: str, file: Path) -> None:
    source = EncoderSource.resolve(str(file) if given == "FILE" else given)
    again = EncoderSource.from_plans(source.to_plans())
    assert again == source
    assert again.encoder is None
    assert tensors_sha256(again.load().state_dict()) == source.sha256
    assert tensors_sha256(source.load().state_dict()) == source.sha256
    assert EncoderSource.from_plans({"encoder": "x", "encoder_source": None}) is None


def test_a_file_is_read_and_hashed_once(file: Path, counts: dict[str, int]) -> None:
    source = EncoderSource.resolve(str(file), taps=(1, 3))
    encoder = source.load()
    assert encoder.taps == (1, 3)
    assert not encoder.training
    assert counts == {"read": 1, "hashed": 1}


def test_extraction_reads_and_hashes_a_file_once(file: Path, counts: dict[str, int]) -> None:
    encoder, recipe = open_encoder(str(file), layers=(1, 3))
    assert counts == {"read": 1, "hashed": 1}
    assert recipe.layers == (1, 3)
    assert recipe.encoder == tensors_sha256(encoder.state_dict())


def test_another_file_in_its_place_is_refused(file: Path) -> None:
    source = EncoderSource.from_plans(EncoderSource.resolve(str(file)).to_plans())
    other = official()
    other["norm.bias"] = other["norm.bias"] + 1
    torch.save(braindino(other), file)
    with pytest.raises(CheckpointError, match=r"the encoder changed: .*rerun `nnunet-fm plan`"):
        source.load()
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"is missing \(tensor hash .*new path"):
        source.load()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"given": "dinov3_test16", "card": "dinov3_test16.trained"}, "remove --card"),
        ({"given": "synth_vitt16", "seed": 1}, "remove --seed"),
        ({"given": "braindino_vitb16"}, "names published weights, .* --encoder FILE --card"),
    ],
)
def test_arguments_that_do_not_go_together(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EncoderSource.resolve(**arguments)
