from pathlib import Path

import numpy as np
import pytest

from helpers.tables import write_lines, write_noise_volume
from nnunet_fm.data.volumes import read_volume
from nnunet_fm.features import read_table
from nnunet_fm.features.content_hashes import InputHashes
from nnunet_fm.features.leakage import overlaps_within


def test_input_hashes_are_remembered_until_the_file_changes(tmp_path: Path) -> None:
    path, memo = tmp_path / "a", tmp_path / "memo"
    path.write_text("one")
    hashes = InputHashes(memo)
    first = hashes.sha256(path)
    hashes.save()
    again = InputHashes(memo)
    assert again.sha256(path) == first
    assert not again.fresh
    path.write_text("two")
    assert again.sha256(path) != first
    assert again.sha256(path, path) != again.sha256(path)
    memo.write_text("no database")
    assert InputHashes(memo).sha256(path) == again.sha256(path)
    with pytest.raises(FileNotFoundError):
        again.sha256(tmp_path / "gone")


def test_voxels_are_read_once_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        write_noise_volume(tmp_path / f"{n}.nii", n)
    read: list[Path] = []
    monkeypatch.setattr(
        "nnunet_fm.data.volumes.read_volume", lambda p: read.append(p) or read_volume(p)
    )
    rows = read_table(write_lines(tmp_path, ["a,0.nii,", "b,1.nii,", "c,2.nii,"]))
    hashes = InputHashes(tmp_path / "memo")
    assert not overlaps_within(rows, hashes, voxels=True)
    assert len(read) == len(set(read)) == 3
    hashes.save()
    overlaps_within(rows, InputHashes(tmp_path / "memo"), voxels=True)
    assert len(read) == 3
    write_noise_volume(tmp_path / "2.nii", 0, kind=np.float32)
    assert [
        o.evidence for o in overlaps_within(rows, InputHashes(tmp_path / "memo"), voxels=True)
    ] == ["voxels"]
