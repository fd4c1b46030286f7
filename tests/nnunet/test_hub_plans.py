"""Plans of an encoder on the Hub keep its commit, and their exports too."""

from pathlib import Path

import pytest

from helpers.hub_server import COMMIT, Repository, serving, use_hub, weights
from helpers.plans import arguments_of, plan
from nnunet_fm.nnunet.export import forget_paths

PINNED = f"hf://lab/brain-dino@{COMMIT}/model.safetensors"


def test_plans_name_the_commit(
    stock_plans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repositories = {"lab/brain-dino": Repository({"model.safetensors": weights()})}
    with serving(repositories) as hub:
        use_hub(monkeypatch, hub.endpoint, tmp_path / "hub")
        plans, words = plan(stock_plans, encoder="hf://lab/brain-dino")
    assert plans["plans_name"] == "FM_brain_dino"
    assert PINNED in words
    (configuration,) = [name for name in plans["configurations"] if name.startswith("2d_fm")]
    assert arguments_of(plans, configuration)["encoder_source"]["file"] == PINNED
    forget_paths(plans)
    assert arguments_of(plans, configuration)["encoder_source"]["file"] == PINNED
