"""A store of whole sessions as slices, one as volumes, and one of volumes from 0 to 1."""

import numpy as np
import pytest

from helpers.pretraining import write_volume_file
from nnunet_fm_pretrain.data.prepare import prepare
from nnunet_fm_pretrain.data.prepare_group import PrepareOptions
from nnunet_fm_pretrain.data.preprocessing import Preprocessing, VolumePreprocessing
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.data.volume_store import VolumeStore


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


SCANS = (("t1", "t2", "flair"), ("t1",), ("t2", "flair"), ("t1", "flair"), ("flair",), ("t1", "t2"))


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> VolumeStore:
    """Eleven scans of 20 x 24 x 28 voxels of six subjects, some of whose sequences are missing."""
    folder = tmp_path_factory.mktemp("scans")
    for subject, sequences in enumerate(SCANS):
        for number, sequence in enumerate(sequences):
            file = folder / f"in/S{subject:02d}/{sequence}.nii.gz"
            write_volume_file(file, 10 * subject + number)
    shape = VolumePreprocessing(shape=(20, 24, 28))
    prepare(folder / "in", PrepareOptions(folder / "store", shape), processes=1)
    return VolumeStore(folder / "store")


TR_MS = {"t1": (8, 20), "t2": (3000, 6000)}


@pytest.fixture(scope="session")
def acquired(tmp_path_factory: pytest.TempPathFactory) -> VolumeStore:
    """T1 and T2 of six subjects, 30 x 36 x 40 voxels, with TR and TE.

    Three scans have a flip angle; two subjects have no region.
    """
    folder = tmp_path_factory.mktemp("acquired")
    rng = np.random.default_rng(0)
    lines = ["subject_id,dataset,sequence,path,tr_ms,te_ms,flip_angle_deg,region"]
    for subject in range(6):
        for number, (sequence, limits) in enumerate(TR_MS.items()):
            name = f"S{subject:02d}_{sequence}.nii.gz"
            write_volume_file(folder / name, 10 * subject + number, (40, 44, 36))
            tr, te = rng.uniform(*limits), rng.uniform(2, 6)
            flip = 9 + subject if subject % 2 and sequence == "t1" else ""
            region = ("brain", "neck", "")[subject % 3]
            lines.append(f"S{subject},d,{sequence},{name},{tr},{te},{flip},{region}")
    (folder / "data.csv").write_text("\n".join(lines) + "\n")
    shape = VolumePreprocessing(shape=(30, 36, 40))
    prepare(folder / "data.csv", PrepareOptions(folder / "store", shape), processes=1)
    return VolumeStore(folder / "store")


@pytest.fixture(scope="session")
def unit_volumes(tmp_path_factory: pytest.TempPathFactory) -> VolumeStore:
    """Six volumes of 20 x 24 x 24 voxels with intensities from 0 to 1."""
    folder = tmp_path_factory.mktemp("volumes")
    for subject in range(6):
        write_volume_file(folder / f"in/S{subject:02d}/t1.nii.gz", subject)
    shape = VolumePreprocessing(shape=(20, 24, 24), intensity="0 to 1")
    prepare(folder / "in", PrepareOptions(folder / "store", shape), processes=1)
    return VolumeStore(folder / "store")
