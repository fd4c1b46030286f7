"""Weight files from the Hub, with a small server on the loopback address."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from helpers.hub_server import COMMIT, HubServer, Repository, serving, use_hub, weights
from nnunet_fm.cli.main import main
from nnunet_fm.encoders import CARDS, EncoderSource, load_encoder
from nnunet_fm.encoders.loading.hub import fetch
from nnunet_fm.encoders.loading.identify import is_published
from nnunet_fm.features.opening import open_encoder
from nnunet_fm.internal.hub_address import HubAddress


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Serve some repositories; the cache is empty."""
    repositories = {
        "lab/brain": Repository({"model.safetensors": weights()}),
        "lab/several": Repository({"a.safetensors": weights(), "sub/b.safetensors": weights()}),
        "lab/mixed": Repository({"model.safetensors": weights(), "old.pth": b"x"}),
        "lab/none": Repository({}),
        "lab/gated": Repository({"model.safetensors": weights()}, gated=True),
        "lab/spaces": Repository({"my model@1.safetensors": weights()}),
        "lab/cut": Repository({"model.safetensors": weights()[:-100]}),
    }
    with serving(repositories) as server:
        use_hub(monkeypatch, server.endpoint, tmp_path / "hub")
        yield server


def test_an_encoder_of_the_hub_is_pinned_and_needs_the_network_once(
    hub: HubServer, caplog: pytest.LogCaptureFixture
) -> None:
    encoder, report = load_encoder("hf://lab/brain")
    assert report.file == f"hf://lab/brain@{COMMIT}/model.safetensors"
    assert report.licence == "cc-by-nc-4.0"
    assert "licence cc-by-nc-4.0" in caplog.text
    source = EncoderSource.resolve("hf://lab/brain")
    assert source.sha256 == report.sha256
    again = EncoderSource.from_plans(source.to_plans())
    assert again == source
    hub.asked.clear()
    hub.repositories["lab/brain"].commit = "b" * 40  # the repository goes on; the plans do not
    assert load_encoder(str(report.file))[1].licence == "cc-by-nc-4.0"
    loaded = again.load() if again else None
    assert loaded is not None
    assert all(map(torch.equal, loaded.parameters(), encoder.parameters()))
    assert hub.asked == []


def test_a_file_that_is_named_or_the_only_safetensors(hub: HubServer) -> None:
    assert fetch("hf://lab/several/sub/b.safetensors").address.file == "sub/b.safetensors"
    assert fetch(f"hf://lab/mixed@{COMMIT}").address.file == "model.safetensors"
    assert fetch("hf://lab/mixed@main").address.revision == COMMIT
    assert fetch("hf://lab/mixed@a%2Fbranch").address.revision == COMMIT
    spaces = fetch("hf://lab/spaces").address
    assert spaces.file == "my model@1.safetensors"
    assert fetch(str(spaces)).address == spaces


def test_features_are_named_after_the_repository(hub: HubServer) -> None:
    _, recipe = open_encoder("hf://lab/brain", shape=(2, 16, 16))
    assert recipe.name == "brain"


def test_a_cache_in_a_folder_called_snapshots(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hub(monkeypatch, hub.endpoint, tmp_path / "snapshots" / "main")
    assert fetch("hf://lab/several/sub/b.safetensors").address.revision == COMMIT


def test_without_a_network_the_cache_is_used(
    hub: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = fetch("hf://lab/brain@main/model.safetensors")
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "hub")  # nobody listens
    again = fetch("hf://lab/brain/model.safetensors")
    assert (again.path, again.address) == (first.path, first.address)
    assert "cannot be reached; using its cache" in caplog.text
    with pytest.raises(FileNotFoundError, match="lab/other/x.pth: the Hub cannot be reached .*its"):
        fetch("hf://lab/other/x.pth")
    with pytest.raises(
        FileNotFoundError, match="name a file that its cache has, hf://OWNER/NAME/F"
    ):
        fetch("hf://lab/brain")


def test_a_hub_that_fails_or_may_not_be_asked(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fetch("hf://lab/brain/model.safetensors")
    hub.failing = True
    assert fetch("hf://lab/brain/model.safetensors") == first
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch("hf://lab/brain/model.safetensors") == first
    with pytest.raises(FileNotFoundError, match="cannot be reached .OfflineModeIsEnabled"):
        fetch("hf://lab/several/a.safetensors")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("hf://lab/absent", "hf://lab/absent: there is no such repository, or it is private"),
        ("hf://lab/brain@v9", "the repository has no revision v9; its revisions: .*lab/brain/com"),
        ("hf://lab/brain/x.pth", "has no such file; its weight files: model.safetensors"),
        ("hf://lab/several", "has 2 weight files: .*e.g. hf://lab/several/a.safetensors"),
        ("hf://lab/none", "hf://lab/none has no weight file"),
        ("hf://lab/gated", "is gated: accept its conditions on .*lab/gated, then type `hf auth"),
        ("hf://lab", "allowed: hf://OWNER/NAME"),
        ("hf://lab/../x", "allowed: hf://OWNER/NAME"),
        ("hf://lab/my--model", "allowed: hf://OWNER/NAME"),
        ("hf://lab/brain.git", "allowed: hf://OWNER/NAME"),
        ("hf://lab/brain.", "allowed: hf://OWNER/NAME"),
        ("hf://lab/brain/a//b.pth", "allowed: hf://OWNER/NAME"),
    ],
)
def test_what_cannot_be_fetched(hub: HubServer, given: str, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        fetch(given)


def test_a_damaged_file_is_not_used(hub: HubServer) -> None:
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_encoder("hf://lab/cut")


def test_a_card_is_pulled(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["encoders", "pull", "bmmae_vitb16.notcga"]) == 2
    assert "luklebigboss/BM-MAE/bmmae_tcga.pth: there is no such repo" in capsys.readouterr().err
    card = replace(CARDS["bmmae_vitb16.notcga"], hub="hf://lab/brain")
    monkeypatch.setitem(CARDS, card.name, card)
    assert main(["encoders", "pull", card.name]) == 0
    shown = capsys.readouterr().out
    assert f"--encoder hf://lab/brain@{COMMIT}/model.safetensors --card {card.name}" in shown
    assert main(["encoders", "pull", "dinov3_test16"]) == 2
    assert "the location of dinov3_test16 on the Hub is not known" in capsys.readouterr().err


def test_cards_are_recognised_in_repositories_of_their_authors_alone(tmp_path: Path) -> None:
    for name in ("openmind_resencl.mae", "openmind_primusm.mae", "openmind_primusm.simmim"):
        published = HubAddress.parse(CARDS[name].hub)
        tuned = replace(published, repository=f"me/{published.name}-brats-finetuned")
        for address, expected in ((published, [name]), (tuned, [])):
            folder = f"models--{address.repository.replace('/', '--')}/snapshots/{COMMIT}"
            path = tmp_path / folder / str(address.file)
            found = [card.name for card in CARDS.values() if is_published(path, card, address)]
            assert found == expected


def test_addresses() -> None:
    for text in (
        "hf://a/b",
        "hf://a/b@v1",
        "hf://a/b/c/d e@.pth",
        "hf://_a/b@x%2Fy/z.pth",
        f"hf://a/b@{COMMIT}/x.pt",
    ):
        assert str(HubAddress.parse(text)) == text
    assert HubAddress.parse(f"hf://a/b@{COMMIT}/x.pt").is_pinned
    assert not HubAddress.parse("hf://a/b@main/x.pt").is_pinned
    assert not HubAddress.parse(f"hf://a/b@{COMMIT}").is_pinned


def test_the_command_line(hub: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encoders", "verify", "hf://lab/brain"]) == 0
    shown = capsys.readouterr().out
    assert f"hf://lab/brain@{COMMIT}/model.safetensors" in shown
    assert "cc-by-nc-4.0, as the repository states" in shown
    assert main(["encoders", "verify", "hf://lab"]) == 2
    assert "allowed: hf://OWNER/NAME" in capsys.readouterr().err
    assert main(["info", "--encoder", "hf://lab/brain"]) == 0
