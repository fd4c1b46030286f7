"""Probes with few resamples."""

import pytest


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnunet_fm_pretrain.probing.linear_probes.RESAMPLES", 50)
