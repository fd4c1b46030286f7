"""Damaged stores are found, and repaired by preparing again."""

import json
from pathlib import Path

import pytest

from helpers.pretraining import SMALL
from nnunet_fm_pretrain.data.array_files import read_record, volume_path
from nnunet_fm_pretrain.data.prepare import prepare
from nnunet_fm_pretrain.data.prepare_group import PrepareOptions
from nnunet_fm_pretrain.data.preprocessing import Preprocessing
from nnunet_fm_pretrain.data.records import SliceRecord
from nnunet_fm_pretrain.data.slice_store import SliceStore


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
    with pytest.raises(FileNotFoundError, match="lacks 1 volume: d/S03_T1"):
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
