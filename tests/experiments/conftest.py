"""nnU-Net's folders in the environment of the tests."""

from pathlib import Path

import pytest


@pytest.fixture
def folders(
    dataset: Path, nnunet: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path]:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, nnunet[name])
    return dataset.parent, Path(nnunet["nnUNet_results"])
