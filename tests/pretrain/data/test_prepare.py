import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from helpers.pretraining import SMALL, write_volume_file
from nnunet_fm_pretrain.data.array_files import read_record, volume_path
from nnunet_fm_pretrain.data.prepare import prepare
from nnunet_fm_pretrain.data.prepare_group import PrepareOptions
from nnunet_fm_pretrain.data.preprocessing import Preprocessing, draw_slices, preprocess
from nnunet_fm_pretrain.data.records import SliceRecord
from nnunet_fm_pretrain.data.slice_store import SliceStore


def contents(store: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()
    }


def test_slices_are_scored_and_the_background_is_zero(store: SliceStore) -> None:
    assert (len(store), store.size, len(store.records)) == (96, 32, 12)
    for record in store.records:
        slices = store.read_volume(record)
        assert slices.shape == (8, 32, 32)
        inside = slices[slices != 0]
        assert abs(inside.mean()) < 0.3
        assert 0.7 < inside.std() < 1.3
        assert (slices[:, 0, 0] == 0).all()
        assert list(record.slices) == sorted(set(record.slices))
    index = 8 * 3 + 5
    record, place = store.locate(index)
    assert np.array_equal(store.read(index), store.read_volume(record)[place])


def test_the_whole_cube_is_scored_exactly() -> None:
    rng = np.random.default_rng(0)
    volume = (rng.random((20, 24, 28)).astype(np.float32) + 1) * (rng.random((20, 24, 28)) > 0.2)
    cube, numbers = preprocess(volume, volume != 0, Preprocessing(size=24, slices=24))
    inside = cube[cube != 0]
    assert list(numbers) == list(range(24))
    assert abs(inside.mean()) < 1e-5
    assert abs(inside.std() - 1) < 1e-5


def test_slices_are_drawn_around_the_middle_and_by_content() -> None:
    options = Preprocessing(size=256, slices=128)
    drawn = [draw_slices([np.full((4, 4, 4), float(i))], options) for i in range(40)]
    together = np.concatenate(drawn)
    assert 120 < together.mean() < 136
    weights = np.exp(-0.5 * ((np.arange(256) - 128) / 50) ** 2)
    likely = np.bincount(together, minlength=256)
    assert np.corrcoef(likely, weights)[0, 1] > 0.9
    assert all(len(set(d)) == 128 for d in drawn)
    assert not np.array_equal(drawn[0], drawn[1])
    assert np.array_equal(drawn[0], draw_slices([np.full((4, 4, 4), 0.0)], options))


def bad(tmp_path: Path, name: str, values: np.ndarray) -> Path:
    path = tmp_path / f"{name}.nii.gz"
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    return path


def test_bad_volumes_are_listed_and_the_others_stored(tmp_path: Path) -> None:
    write_volume_file(tmp_path / "good.nii.gz")
    bad(tmp_path, "4d", np.ones((20, 20, 20, 3), np.float32))
    bad(tmp_path, "2d", np.ones((20, 20), np.float32))
    bad(tmp_path, "constant", np.full((20, 20, 20), 7, np.float32))
    bad(tmp_path, "nan", np.full((20, 20, 20), np.nan, np.float32))
    bad(tmp_path, "tiny", np.arange(8, dtype=np.float32).reshape(2, 2, 2))
    bad(
        tmp_path,
        "box",
        np.pad(np.ones((30, 3, 30), np.float32), ((0, 0), (9, 9), (0, 0))) * np.arange(30),
    )
    (tmp_path / "text.nii.gz").write_text("no image")
    whole = write_volume_file(tmp_path / "cut.nii.gz", seed=5).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "copy.nii.gz").write_bytes((tmp_path / "good.nii.gz").read_bytes())
    out = tmp_path / "store"
    outcomes = prepare(tmp_path, PrepareOptions(out, SMALL), processes=1, dataset="d")
    reasons = {o.source.subject: o.reason for o in outcomes if not o.record}
    for subject, reason in {
        "4d": "4-D",
        "2d": "2-D",
        "constant": "every voxel is 7",
        "nan": "100.0% of the voxels are NaN",
        "tiny": "at least 16 voxels",
        "box": "non-zero box",
        "text": "not a readable NIfTI",
        "cut": "truncated or damaged",
        "good": "its bytes are those of d/copy_unknown",
    }.items():
        assert reason in reasons.pop(subject)
    assert not reasons
    assert [r.subject for r in SliceStore(out).records] == ["copy"]
    assert (out / "failures.csv").read_text().count("\n") == 10


def test_a_second_run_makes_nothing(volumes: Path, tmp_path: Path) -> None:
    job = PrepareOptions(tmp_path, SMALL)
    prepare(volumes, job, processes=1)
    before = contents(tmp_path)
    outcomes = prepare(volumes, job, processes=1)
    assert all(o.ready for o in outcomes)
    assert contents(tmp_path) == before


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
    assert contents(job.store) == contents(store.folder)


def test_an_interrupted_store_is_not_completed_with_other_options(
    volumes: Path, store: SliceStore, tmp_path: Path
) -> None:
    shutil.copytree(store.folder, tmp_path / "store")
    (tmp_path / "store/manifest.jsonl").unlink()
    job = PrepareOptions(tmp_path / "store", Preprocessing(size=32, slices=6))
    with pytest.raises(ValueError, match="--slices 8 .*now .*--slices 6 "):
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


def test_parts_together_are_the_whole(volumes: Path, store: SliceStore, tmp_path: Path) -> None:
    for part in range(3):
        prepare(
            volumes,
            PrepareOptions(tmp_path, SMALL),
            processes=1,
            part=(part, 3),
            dataset=store.records[0].dataset,
        )
    assert SliceStore(tmp_path).identity() == store.identity()
    with pytest.raises(ValueError, match="part 3 of 3; allowed: --part-id from 0 to 2"):
        prepare(volumes, PrepareOptions(tmp_path, SMALL), part=(3, 3))


def test_a_killed_run_is_completed_to_the_same_bytes(volumes: Path, tmp_path: Path) -> None:
    def words(out: Path) -> list[str]:
        told = ["pretrain", "prepare", volumes, "-o", out, "--size", 160, "--slices", 100, "-np", 2]
        return [sys.executable, "-W", "ignore", "-m", "nnunet_fm.cli", *map(str, told)]

    subprocess.run(words(tmp_path / "whole"), check=True, capture_output=True)
    with subprocess.Popen(
        words(tmp_path / "killed"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        while not list((tmp_path / "killed").rglob("*.b2nd")):
            assert process.poll() is None
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
    assert len(list((tmp_path / "killed").rglob("*.b2nd"))) < 12
    subprocess.run(words(tmp_path / "killed"), check=True, capture_output=True)
    whole, killed = contents(tmp_path / "whole"), contents(tmp_path / "killed")
    assert {k: v for k, v in killed.items() if not k.endswith(".tmp")} == whole


def test_compact_stores_are_near_and_keep_the_background(
    volumes: Path, store: SliceStore, tmp_path: Path
) -> None:
    prepare(
        volumes,
        PrepareOptions(tmp_path, SMALL, uint8=True),
        processes=1,
        dataset=store.records[0].dataset,
    )
    compact = SliceStore(tmp_path)
    for exact, near in zip(store.records, compact.records, strict=True):
        one, other = store.read_volume(exact), compact.read_volume(near)
        assert np.array_equal(one == 0, other == 0)
        assert np.abs(one - other).max() <= near.scale / 2 + 2e-3  # half a level, and float16
    assert compact.records[0].dtype == "uint8"


def test_masks_and_commands_strip(tmp_path: Path) -> None:
    write_volume_file(tmp_path / "v.nii.gz")
    image = nib.load(tmp_path / "v.nii.gz")
    mask = np.zeros(image.shape, np.uint8)
    mask[4:-4, 4:-4, 4:-4] = 1
    nib.save(nib.Nifti1Image(mask, image.affine), tmp_path / "m.nii.gz")
    (tmp_path / "t.csv").write_text(
        "subject_id,dataset,sequence,path,mask\na,d,T1,v.nii.gz,m.nii.gz\n"
    )
    given = prepare(
        tmp_path / "t.csv", PrepareOptions(tmp_path / "1", SMALL, skull_strip="mask"), processes=1
    )
    program = tmp_path / "strip.sh"
    program.write_text(f"#!/bin/sh\ncp {tmp_path}/m.nii.gz $2\n")
    program.chmod(0o755)
    made = prepare(
        tmp_path / "t.csv",
        PrepareOptions(tmp_path / "2", SMALL, skull_strip=f"command:{program} {{in}} {{out}}"),
        processes=1,
    )
    none = prepare(tmp_path / "t.csv", PrepareOptions(tmp_path / "3", SMALL), processes=1)
    checksums = [o[0].record.sha256 for o in (given, made, none) if o[0].record]
    assert checksums[0] == checksums[1] != checksums[2]
    program.write_text("#!/bin/sh\necho no brain >&2; exit 3\n")
    (failed,) = prepare(
        tmp_path / "t.csv",
        PrepareOptions(tmp_path / "4", SMALL, skull_strip=f"command:{program} {{in}} {{out}}"),
        1,
    )
    assert failed.reason == f"{program} failed with code 3; the last line of its output: no brain"


@pytest.mark.parametrize(
    ("strip", "message"),
    [
        ("hdbet", "Did you mean hd-bet"),
        ("command:no-such-program {in} {out}", "not on the PATH"),
        ("command:cp", "with {in} and {out}"),
    ],
)
def test_stripping_is_checked_before_any_work(
    volumes: Path, tmp_path: Path, strip: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(volumes, PrepareOptions(tmp_path / "s", skull_strip=strip))
    assert not (tmp_path / "s").exists()


def test_a_full_disk_stops_with_what_to_do(
    volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("Error while creating the NDArray: No space left")  # blosc2's kind

    monkeypatch.setattr("blosc2.asarray", full)
    with pytest.raises(OSError, match=r"No space left.*Free disk space, then rerun the command"):
        prepare(volumes, PrepareOptions(tmp_path, SMALL), processes=1)


def test_damage_is_found(volumes: Path, tmp_path: Path) -> None:
    prepare(volumes, PrepareOptions(tmp_path, SMALL), processes=1, dataset="d")
    found = SliceStore(tmp_path)
    assert not found.check()
    path = volume_path(tmp_path, "d/S03_T1")
    path.write_bytes(path.read_bytes()[:200])
    assert found.check() == ["d/S03_T1"]
    assert read_record(path, SliceRecord) is None
    outcomes = prepare(volumes, PrepareOptions(tmp_path, SMALL), processes=1, dataset="d")
    assert [o.source.name for o in outcomes if not o.ready] == ["d/S03_T1"]
    path.unlink()
    with pytest.raises(FileNotFoundError, match="1 volumes of .* are missing: d/S03_T1"):
        SliceStore(tmp_path)


def test_stores_are_checked(volumes: Path, tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match="is not a slice store; type: nnunet-fm pretrain prepare"
    ):
        SliceStore(tmp_path)
    prepare(volumes, PrepareOptions(tmp_path, SMALL), processes=1, dataset="d")
    lines = (tmp_path / "manifest.jsonl").read_text().splitlines()
    other = json.loads(lines[0]) | {"size": 64}
    (tmp_path / "manifest.jsonl").write_text("\n".join([*lines[1:], json.dumps(other)]))
    with pytest.raises(ValueError, match=r"slices of sides \[32, 64\]"):
        SliceStore(tmp_path)
    with pytest.raises(ValueError, match="9 slices of a cube of side 8"):
        Preprocessing(size=8, slices=9)


def test_registered_sequences_share_box_and_slices(tmp_path: Path) -> None:
    write_volume_file(tmp_path / "mri/a/t1.nii.gz")
    image = nib.load(tmp_path / "mri/a/t1.nii.gz")
    values = image.get_fdata() ** 0.5
    values[:, :14] = 0  # this sequence covers half of the brain
    nib.save(
        nib.Nifti1Image(values.astype(np.float32), image.affine), tmp_path / "mri/a/flair.nii.gz"
    )
    write_volume_file(tmp_path / "mri/b/t1.nii.gz", seed=3)
    write_volume_file(tmp_path / "mri/c/t1.nii.gz", seed=4)
    write_volume_file(tmp_path / "mri/c/t2.nii.gz", seed=5, shape=(24, 24, 24))
    outcomes = prepare(
        tmp_path / "mri",
        PrepareOptions(tmp_path / "store", SMALL, registered=True),
        processes=1,
        dataset="d",
    )
    store = SliceStore(tmp_path / "store")
    flair, t1, alone = store.records
    assert [r.volume for r in store.registered(t1)] == ["d/a_FLAIR", "d/a_T1"]
    assert store.registered(alone) == [alone]
    assert flair.slices == t1.slices
    one, other = store.read_volume(flair), store.read_volume(t1)
    assert (other[:, 20:] != 0).mean() > 0.3
    assert not (one[:, 20:] != 0).any()  # the box is that of both
    both = (one != 0) & (other != 0)
    assert np.corrcoef(one[both], other[both])[0, 1] > 0.85  # the same voxels
    reasons = [o.reason for o in outcomes if not o.record]
    assert len(reasons) == 2
    assert "registered ones lie on the same grid" in reasons[0]
    again = prepare(
        tmp_path / "mri",
        PrepareOptions(tmp_path / "store", SMALL, registered=True),
        processes=1,
        dataset="d",
    )
    assert [o.ready for o in again] == [True, True, True, False, False]


def test_a_store_is_made_from_one_input_in_one_number_of_parts(
    volumes: Path, tmp_path: Path
) -> None:
    job = PrepareOptions(tmp_path / "store", SMALL)
    prepare(volumes, job, processes=1, part=(0, 2), dataset="d")
    with pytest.raises(ValueError, match=r"lacks part 1 of 2; prepare --part-id"):
        SliceStore(job.store)
    with pytest.raises(ValueError, match=r"made with --num-parts 2, now 1"):
        prepare(volumes, job, processes=1, dataset="d")
    prepare(volumes, job, processes=1, part=(1, 2), dataset="d")
    assert len(SliceStore(job.store).records) == 12
    (tmp_path / "exclude.txt").write_text("S03\n")
    with pytest.raises(ValueError, match=r"holds 2 volumes .* \(excluded now\?\): d/S03_FLAIR"):
        prepare(
            volumes, job, processes=1, part=(0, 2), dataset="d", exclude=tmp_path / "exclude.txt"
        )
    (tmp_path / "exclude.txt").write_text("sub-99\n")
    with pytest.raises(
        ValueError,
        match=r"none of the ids .* \(sub-99\) is a subject here; the subjects are called S00",
    ):
        prepare(
            volumes,
            PrepareOptions(tmp_path / "other", SMALL),
            processes=1,
            exclude=tmp_path / "exclude.txt",
        )


def test_one_person_under_two_names_in_two_parts_is_refused(tmp_path: Path) -> None:
    write_volume_file(tmp_path / "mri/a.nii.gz")
    (tmp_path / "mri/b.nii.gz").write_bytes((tmp_path / "mri/a.nii.gz").read_bytes())
    for part in range(2):
        prepare(
            tmp_path / "mri",
            PrepareOptions(tmp_path / "store", SMALL),
            processes=1,
            part=(part, 2),
            dataset="d",
        )
    with pytest.raises(ValueError, match="d/b_unknown was made from the very bytes of d/a_unknown"):
        SliceStore(tmp_path / "store")


def test_masks_lie_where_the_volume_lies(tmp_path: Path) -> None:
    path = write_volume_file(tmp_path / "v.nii.gz")
    image = nib.load(path)
    ones = np.ones(image.shape, np.uint8)
    moved = image.affine.copy()
    moved[0, 3] = 5
    nib.save(nib.Nifti1Image(ones, moved), tmp_path / "moved.nii.gz")
    nib.save(nib.Nifti1Image(ones[:-1], image.affine), tmp_path / "smaller.nii.gz")
    nib.save(nib.Nifti1Image(0 * ones, image.affine), tmp_path / "empty.nii.gz")
    whole = (tmp_path / "moved.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    reasons = {
        "moved": "lies elsewhere",
        "smaller": "voxels against",
        "empty": "is empty",
        "cut": "not a readable NIfTI",
    }
    rows = [f"{name},d,T1,v.nii.gz,{name}.nii.gz" for name in reasons]
    (tmp_path / "t.csv").write_text("\n".join(["subject_id,dataset,sequence,path,mask", *rows]))
    outcomes = prepare(
        tmp_path / "t.csv", PrepareOptions(tmp_path / "s", SMALL, skull_strip="mask"), processes=1
    )
    assert all(reasons[o.source.subject] in o.reason for o in outcomes)


def test_a_flipped_byte_is_found_and_repaired(volumes: Path, tmp_path: Path) -> None:
    prepare(volumes, PrepareOptions(tmp_path, SMALL), processes=1, dataset="d")
    path = volume_path(tmp_path, "d/S03_T1")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(bytes(content))
    assert SliceStore(tmp_path).check() == ["d/S03_T1"]
    assert [
        o.source.name
        for o in prepare(volumes, PrepareOptions(tmp_path, SMALL), 1, dataset="d")
        if not o.ready
    ] == ["d/S03_T1"]
    assert not SliceStore(tmp_path).check()
