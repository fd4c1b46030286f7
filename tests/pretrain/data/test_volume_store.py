"""Stores of whole volumes, read by crop, and slice stores with all slices."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from helpers.pretraining import SMALL, stored_volumes, write_volume_file
from nnunet_fm.cli.main import main
from nnunet_fm_pretrain.data.array_files import volume_path
from nnunet_fm_pretrain.data.open_store import open_store
from nnunet_fm_pretrain.data.prepare import prepare
from nnunet_fm_pretrain.data.prepare_group import PrepareOptions
from nnunet_fm_pretrain.data.preprocessing import VolumePreprocessing
from nnunet_fm_pretrain.data.sampling import SampleOrder
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.data.volume_store import VolumeStore

NATIVE = VolumePreprocessing(spacing=None, chunks=(4, 8, 8))


def make(source: Path, store: Path, preprocessing: VolumePreprocessing = NATIVE) -> VolumeStore:
    prepare(source, PrepareOptions(store, preprocessing), processes=1, dataset="d")
    return VolumeStore(store)


def test_crops_equal_slices_of_the_whole_volume(volumes: Path, tmp_path: Path) -> None:
    store = make(volumes, tmp_path)
    rng = np.random.default_rng(0)
    assert len(store) == 12
    for record in store.records[:4]:
        whole = store.read_volume(record)
        assert whole.shape == record.shape
        assert record.spacing == (1.0, 1.0, 1.0)
        for _ in range(5):
            shape = [int(rng.integers(1, n + 1)) for n in record.shape]
            start = [int(rng.integers(n - m + 1)) for n, m in zip(record.shape, shape, strict=True)]
            box = tuple(slice(a, a + m) for a, m in zip(start, shape, strict=True))
            assert np.array_equal(store.read_crop(record, start, shape), whole[box])
    with pytest.raises(ValueError, match=r"reaches beyond d/S00_FLAIR, which has \("):
        store.read_crop(store.records[0], (0, 0, 0), (99, 4, 4))


def test_volumes_are_scored_and_their_background_is_zero(volumes: Path, tmp_path: Path) -> None:
    store = make(volumes, tmp_path)
    for record in store.records:
        values = store.read_volume(record)
        inside = values[values != 0]
        assert abs(inside.mean()) < 1e-2
        assert abs(inside.std() - 1) < 1e-2
        assert (values == 0).mean() > 0.2  # the corners of the ellipsoid's box


def test_intensities_from_zero_to_one(volumes: Path, tmp_path: Path) -> None:
    unit = replace(NATIVE, intensity="0 to 1")
    scored, store = make(volumes, tmp_path / "z"), make(volumes, tmp_path / "unit", unit)
    for record, other in zip(store.records, scored.records, strict=True):
        assert (record.intensity, other.intensity) == ("0 to 1", "z-score")
        values, scores = store.read_volume(record), scored.read_volume(other)
        inside = scores != 0
        assert values.min() == 0
        assert values.max() == 1
        assert not values[~inside].any()
        line = np.polyfit(scores[inside], values[inside], 1)  # a linear map of the z-scores
        assert np.abs(np.polyval(line, scores[inside]) - values[inside]).max() < 2e-3
    with pytest.raises(ValueError, match="other options .* now --volumes --zero-to-one"):
        make(volumes, tmp_path / "z", unit)
    with pytest.raises(ValueError, match="intensity 'x'; allowed: z-score, 0 to 1"):
        VolumePreprocessing(intensity="x")


def test_stores_from_before_there_was_a_choice_hold_z_scores(volumes: Path, tmp_path: Path) -> None:
    assert VolumePreprocessing().key() == "e04ee8c3dc36"
    store = make(volumes, tmp_path)
    manifest = tmp_path / "manifest.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for line in lines:
        del line["intensity"]
    manifest.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert {record.intensity for record in VolumeStore(tmp_path).records} == {"z-score"}
    assert VolumeStore(tmp_path).identity() == store.identity()


def test_spacing_and_shape(tmp_path: Path) -> None:
    path = write_volume_file(
        tmp_path / "mri" / "a" / "t1.nii.gz", shape=(40, 40, 20), affine=np.diag([1.0, 1.0, 2.0, 1])
    )
    box = nib.load(path).get_fdata() != 0
    extent = [np.ptp(axis) + 1 for axis in np.nonzero(box)][::-1]  # z, y, x
    (record,) = make(tmp_path / "mri", tmp_path / "iso", VolumePreprocessing()).records
    assert record.shape == (extent[0] * 2, extent[1], extent[2])
    assert record.spacing == (1.0, 1.0, 1.0)
    fitted = VolumePreprocessing(shape=(48, 24, 24))
    (record,) = make(tmp_path / "mri", tmp_path / "fit", fitted).records
    assert (record.shape, record.spacing) == ((48, 24, 24), (1.0, 1.0, 1.0))
    resized = VolumePreprocessing(spacing=None, shape=(16, 16, 16))
    (record,) = make(tmp_path / "mri", tmp_path / "cube", resized).records
    assert record.shape == (16, 16, 16)
    assert record.spacing == pytest.approx((extent[0] * 2 / 16, extent[1] / 16, extent[2] / 16))
    with pytest.raises(ValueError, match=r"shape \(8, 8, 8\); allowed: 16 to 1024"):
        VolumePreprocessing(shape=(8, 8, 8))
    with pytest.raises(ValueError, match=r"spacing .*; allowed: 0.1 to 20 mm"):
        VolumePreprocessing(spacing=(0.0, 1.0, 1.0))


def test_uint8_volumes_are_near_and_keep_the_background(volumes: Path, tmp_path: Path) -> None:
    exact = make(volumes, tmp_path / "exact")
    prepare(volumes, PrepareOptions(tmp_path / "u", NATIVE, uint8=True), processes=1, dataset="d")
    near = VolumeStore(tmp_path / "u")
    for one, other in zip(exact.records, near.records, strict=True):
        difference = exact.read_volume(one) - near.read_volume(other)
        assert np.abs(difference).max() <= other.scale / 2 + 2e-3
        assert np.array_equal(exact.read_volume(one) == 0, near.read_volume(other) == 0)


def test_sessions_group_the_records(volumes: Path, tmp_path: Path) -> None:
    store = make(volumes, tmp_path)
    groups = store.sessions()
    assert [[r.sequence for r in group] for group in groups] == [["FLAIR", "T1"]] * 6
    assert len(store.subjects()) == 6
    order = SampleOrder(len(store), 4, seed=0, unit="volumes")
    assert sorted(order.index_of(n) for n in range(12)) == list(range(12))
    with pytest.raises(ValueError, match="12 volumes, fewer than one batch of 13"):
        SampleOrder(len(store), 13, seed=0, unit="volumes")


def test_damage_is_found_and_repaired(volumes: Path, tmp_path: Path) -> None:
    store = make(volumes, tmp_path)
    assert store.check() == []
    identity = store.identity()
    path = volume_path(tmp_path, "d/S02_T1")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    assert store.check() == ["d/S02_T1"]
    outcomes = prepare(volumes, PrepareOptions(tmp_path, NATIVE), processes=1, dataset="d")
    assert [o.source.name for o in outcomes if not o.ready] == ["d/S02_T1"]
    assert VolumeStore(tmp_path).identity() == identity
    assert VolumeStore(tmp_path).check() == []


def test_the_kinds_of_stores_are_not_mixed(volumes: Path, tmp_path: Path) -> None:
    make(volumes, tmp_path / "volumes")
    prepare(volumes, PrepareOptions(tmp_path / "slices", SMALL), processes=1, dataset="d")
    with pytest.raises(ValueError, match=r"is not a slice store \(a store of volumes"):
        SliceStore(tmp_path / "volumes")
    with pytest.raises(ValueError, match=r"is not a volume store .*prepare DATA --volumes -o"):
        VolumeStore(tmp_path / "slices")
    with pytest.raises(ValueError, match="is a store of volumes; .*give another -o"):
        prepare(volumes, PrepareOptions(tmp_path / "volumes", SMALL), processes=1, dataset="d")
    assert isinstance(open_store(tmp_path / "volumes"), VolumeStore)
    assert isinstance(open_store(tmp_path / "slices"), SliceStore)


def test_a_killed_preparation_is_completed_to_the_same_store(volumes: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "nnunet_fm.cli", "pretrain", "prepare"]
    options = ["--volumes", "--shape", "96", "96", "96", "-np", "1"]
    words = [*command, str(volumes), *options, "-o"]
    store = tmp_path / "killed"
    with subprocess.Popen(
        [*words, str(store)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        while not stored_volumes(store):
            assert process.poll() is None
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
    assert len(stored_volumes(store)) < 12
    subprocess.run([*words, str(store)], check=True, capture_output=True)
    shape = VolumePreprocessing(spacing=None, shape=(96, 96, 96))
    whole = tmp_path / "whole"
    prepare(volumes, PrepareOptions(whole, shape), processes=1)
    assert VolumeStore(store).identity() == VolumeStore(whole).identity()
    assert VolumeStore(store).check() == []


def test_all_slices_are_kept_and_read_as_slabs(
    volumes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pretrain", "prepare", str(volumes), "-o", str(tmp_path), "--size", "32", "-np", "1"]
    assert main([*words, "--slices", "all"]) == 0
    store = SliceStore(tmp_path)
    record = store.records[3]
    assert record.slices == tuple(range(32))
    slab = store.read_slab(record, 10, 5)
    assert np.array_equal(slab, store.read_volume(record)[10:15])
    assert np.array_equal(slab[2], store.read_slice(record, 12))
    with pytest.raises(ValueError, match="slices 30 to 34 of .*; allowed: 0 to 31"):
        store.read_slab(record, 30, 5)
    assert main([*words, "--slices", "many"]) == 2
    assert "'many'; allowed: a whole number from 1 to 4096, or all" in capsys.readouterr().err
    assert main([*words, "--shape", "32", "32", "32"]) == 2
    assert "add --volumes" in capsys.readouterr().err


def test_doctor_looks_at_a_volume_store(
    volumes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(volumes, tmp_path, VolumePreprocessing(spacing=None, shape=(16, 24, 24)))
    main(["pretrain", "doctor", "--store", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "12 volumes of 6 subjects, 12 volumes of 16 x 24 x 24 voxels" in printed
