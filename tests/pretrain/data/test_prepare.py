"""From files to a store: parts, interrupted runs, masks and bad volumes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from helpers.pretraining import SMALL, store_contents, stored_volumes, write_volume_file
from nnunet_fm_pretrain.data.prepare import prepare
from nnunet_fm_pretrain.data.prepare_group import PrepareOptions
from nnunet_fm_pretrain.data.slice_store import SliceStore


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
    before = store_contents(tmp_path)
    outcomes = prepare(volumes, job, processes=1)
    assert all(o.ready for o in outcomes)
    assert store_contents(tmp_path) == before


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
        while not stored_volumes(tmp_path / "killed"):
            assert process.poll() is None
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
    assert len(stored_volumes(tmp_path / "killed")) < 12
    subprocess.run(words(tmp_path / "killed"), check=True, capture_output=True)
    whole, killed = store_contents(tmp_path / "whole"), store_contents(tmp_path / "killed")
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
