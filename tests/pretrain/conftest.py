"""Small volumes, a store made of them, and a recipe that runs in a second."""

from pathlib import Path

import pytest

from helpers.pretraining import SMALL, small_recipe, write_volume_file
from nnunet_fm_pretrain.data.prepare import prepare
from nnunet_fm_pretrain.data.prepare_group import PrepareOptions
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.methods.braindino.recipe import BrainDinoRecipe
from nnunet_fm_pretrain.methods.recipes import parse_recipe


@pytest.fixture(scope="session")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six subjects with a T1 and a FLAIR volume each, in a folder each."""
    folder = tmp_path_factory.mktemp("mri")
    for subject in range(6):
        for number, sequence in enumerate(("t1", "flair")):
            write_volume_file(
                folder / f"S{subject:02d}" / f"{sequence}.nii.gz", 10 * subject + number
            )
    return folder


@pytest.fixture(scope="session")
def store(volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> SliceStore:
    """Twelve volumes of eight slices of 32 pixels."""
    folder = tmp_path_factory.mktemp("store")
    prepare(volumes, PrepareOptions(folder, SMALL), processes=1)
    return SliceStore(folder)


@pytest.fixture
def recipe() -> BrainDinoRecipe:
    return parse_recipe(small_recipe(), "test")
