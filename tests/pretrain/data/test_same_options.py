"""A store keeps the options that it was made with."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.pretraining import SMALL, store_contents, write_volume_file
from nnunet_fm_pretrain.data.prepare import prepare
from nnunet_fm_pretrain.data.prepare_group import PrepareOptions
from nnunet_fm_pretrain.data.preprocessing import Preprocessing, VolumePreprocessing
from nnunet_fm_pretrain.data.slice_store import SliceStore


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preprocessing": Preprocessing(size=48, slices=8)}, "--size 32.*now --size 48"),
        ({"preprocessing": Preprocessing(size=32, slices=6)}, "--slices 8 .*now .*--slices 6 "),
        ({"preprocessing": Preprocessing(size=32, slices=8, seed=1)}, "now .*--seed 1 "),
        ({"uint8": True}, "other options .* now .*--uint8"),
        ({"registered": True}, "records say no --registered"),
        ({"skull_strip": "mask"}, "--skull-strip none.* now .*--skull-strip mask"),
    ],
)
def test_a_store_made_with_other_options_is_not_replaced(
    changes: dict[str, Any], message: str, volumes: Path, store: SliceStore, tmp_path: Path
) -> None:
    shutil.copytree(store.folder, tmp_path / "store")
    job = replace(PrepareOptions(tmp_path / "store", SMALL), **changes)
    with pytest.raises(ValueError, match=message) as raised:
        prepare(volumes, job, processes=1)
    assert "give another -o, or delete the folder" in str(raised.value)
    assert store_contents(job.store) == store_contents(store.folder)


def test_an_interrupted_store_is_not_completed_with_other_options(
    volumes: Path, store: SliceStore, tmp_path: Path
) -> None:
    shutil.copytree(store.folder, tmp_path / "store")
    (tmp_path / "store/manifest.jsonl").unlink()
    job = PrepareOptions(tmp_path / "store", Preprocessing(size=32, slices=6))
    with pytest.raises(ValueError, match="--slices 8 .*now .*--slices 6 "):
        prepare(volumes, job, processes=1)


def test_an_interrupted_store_of_slices_is_not_replaced_by_volumes(
    volumes: Path, store: SliceStore, tmp_path: Path
) -> None:
    shutil.copytree(store.folder, tmp_path / "store")
    (tmp_path / "store/manifest.jsonl").unlink()
    job = PrepareOptions(tmp_path / "store", VolumePreprocessing(shape=(32, 32, 32)))
    with pytest.raises(ValueError, match="--size 32 --slices 8 .*now .*--volumes"):
        prepare(volumes, job, processes=1)


def test_a_licence_given_later_reaches_the_manifest(
    volumes: Path, store: SliceStore, tmp_path: Path
) -> None:
    shutil.copytree(store.folder, tmp_path / "store")
    job = PrepareOptions(tmp_path / "store", SMALL)
    outcomes = prepare(volumes, job, processes=1, licence="CC BY")
    assert all(outcome.ready for outcome in outcomes)
    assert {record.licence for record in SliceStore(job.store).records} == {"CC BY"}


def test_registered_stores_stay_registered(tmp_path: Path) -> None:
    write_volume_file(tmp_path / "mri/a/t1.nii.gz")
    write_volume_file(tmp_path / "mri/a/t2.nii.gz", seed=1)
    job = PrepareOptions(tmp_path / "store", SMALL, registered=True)
    prepare(tmp_path / "mri", job, processes=1)
    with pytest.raises(ValueError, match="records say --registered"):
        prepare(tmp_path / "mri", replace(job, registered=False), processes=1)


def test_registered_without_effect_is_refused(tmp_path: Path) -> None:
    write_volume_file(tmp_path / "mri/a/t1.nii.gz")
    write_volume_file(tmp_path / "mri/b/t1.nii.gz", seed=1)
    job = PrepareOptions(tmp_path / "store", SMALL, registered=True)
    with pytest.raises(ValueError, match=r"--registered would have no effect.*mri/a_T1, mri/b_T1"):
        prepare(tmp_path / "mri", job, processes=1)
    assert not job.store.exists()
