"""A store of whole sessions."""

import pytest

from helpers.pretraining import write_volume_file
from nnunet_fm_pretrain.data.prepare import prepare
from nnunet_fm_pretrain.data.prepare_group import PrepareOptions
from nnunet_fm_pretrain.data.preprocessing import Preprocessing
from nnunet_fm_pretrain.data.slice_store import SliceStore


@pytest.fixture(scope="session")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> SliceStore:
    """All 28 slices of T1 and FLAIR of six subjects; the last has no FLAIR."""
    folder = tmp_path_factory.mktemp("sessions")
    for subject in range(6):
        for number, sequence in enumerate(("t1", "flair")):
            if (subject, sequence) != (5, "flair"):
                file = folder / f"in/S{subject:02d}/{sequence}.nii.gz"
                write_volume_file(file, 10 * subject + number)
    options = PrepareOptions(folder / "store", Preprocessing(28, 28), registered=True)
    prepare(folder / "in", options, processes=1)
    return SliceStore(folder / "store")
