import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.tables import write_lines, write_noise_volume
from nnunet_fm.data.volumes import read_volume, voxels_sha256
from nnunet_fm.features import read_table
from nnunet_fm.features.content_hashes import InputHashes
from nnunet_fm.features.leakage import (
    find_overlaps,
    near_duplicates,
    overlaps_within,
    raise_or_describe,
    read_seen,
)


def test_a_pretraining_store_is_recognised_by_name_crosswalk_bytes_and_voxels(
    tmp_path: Path,
) -> None:
    for n in range(4):
        write_noise_volume(tmp_path / f"{n}.nii.gz", n)
    hashes = InputHashes(tmp_path / "memo")
    record = {"dataset": "BraTS2021", "session": "", "sequence": "T1"}
    manifest = tmp_path / "manifest.jsonl"
    voxels = voxels_sha256(read_volume(tmp_path / "2.nii.gz")[0])
    records = [
        {"subject": "BraTS2021_00097", "source_sha256": "x"},
        {
            "subject": "p1",
            "source_sha256": hashes.sha256(tmp_path / "1.nii.gz"),
            "voxels_sha256": "y",
        },
        {"subject": "p2", "source_sha256": "z", "voxels_sha256": voxels},
    ]
    manifest.write_text("\n".join(json.dumps(record | r) for r in records))
    write_noise_volume(
        tmp_path / "copy.nii", 2, np.diag([-1.0, 1, 1, 1]), np.float32, pad=3
    )  # mirrored, padded, another type
    lines = [
        "UCSF-PDGM-004,0.nii.gz,test,BraTS2021_00097",
        "b,1.nii.gz,test,",
        "c,copy.nii,test,",
        "d,3.nii.gz,test,",
    ]
    rows = read_table(write_lines(tmp_path, lines, "subject_id,T1,split,BraTS21 ID")).rows
    for where in (manifest, tmp_path):
        seen = read_seen(where, hashes)
        assert [(o.test_case, o.evidence) for o in find_overlaps(rows, seen, hashes)] == [
            ("UCSF-PDGM-004", "subject"),
            ("b", "bytes"),
        ]
    assert [o.test_case for o in find_overlaps(rows, seen, hashes, voxels=True)] == [
        "UCSF-PDGM-004",
        "b",
        "c",
    ]


def test_a_list_of_subjects_and_a_table_are_manifests_too(tmp_path: Path) -> None:
    write_noise_volume(tmp_path / "a.nii", 0)
    hashes = InputHashes(tmp_path / "memo")
    rows = read_table(write_lines(tmp_path, ["IXI002,a.nii,test", "other,a.nii,test"])).rows
    (tmp_path / "ids.txt").write_text("# seen\nIXI/IXI002-Guys-0828\n")
    assert [
        o.test_case for o in find_overlaps(rows, read_seen(tmp_path / "ids.txt", hashes), hashes)
    ] == ["IXI002"]
    (tmp_path / "seen.csv").write_text("subject_id,T1\nsomebody,a.nii\n")
    found = find_overlaps(rows, read_seen(tmp_path / "seen.csv", hashes), hashes)
    assert [(o.test_case, o.evidence) for o in found] == [("IXI002", "bytes"), ("other", "bytes")]
    (tmp_path / "none.txt").write_text("# nobody\n")
    with pytest.raises(ValueError, match="names no subject"):
        read_seen(tmp_path / "none.txt", hashes)
    (tmp_path / "other.csv").write_text("id,dataset\n001,a\n")
    with pytest.raises(
        ValueError, match="has no column subject_id or participant_id; it has: id, dataset"
    ):
        read_seen(tmp_path / "other.csv", hashes)
    (tmp_path / "visits.csv").write_text(
        "subject_id,T1\nx1,gone.nii\nx1,a.nii\n"
    )  # no task's table, but a list
    found = find_overlaps(rows, read_seen(tmp_path / "visits.csv", hashes), hashes)
    assert [(o.test_case, o.match, o.evidence) for o in found] == [
        ("IXI002", "x1", "bytes"),
        ("other", "x1", "bytes"),
    ]
    with pytest.raises(FileNotFoundError, match="give a slice store"):
        read_seen(tmp_path / "gone.jsonl", hashes)


def test_training_and_tested_rows_of_one_table_are_compared(tmp_path: Path) -> None:
    for n in range(3):
        write_noise_volume(tmp_path / f"{n}.nii", n)
    hashes = InputHashes(tmp_path / "memo")
    lines = [
        "a,0.nii,train",
        "b,0.nii,test",
        "UPENN-GBM-00002_11,1.nii,train",
        "UPENN-GBM-00002_21,2.nii,test",
    ]
    found = overlaps_within(read_table(write_lines(tmp_path, lines)), hashes)
    assert [(o.test_case, o.match, o.evidence) for o in found] == [
        ("b", "a", "bytes"),
        ("UPENN-GBM-00002_21", "UPENN-GBM-00002_11", "subject"),
    ]
    folds = [line.rsplit(",", 1)[0] + "," for line in lines]
    assert len(overlaps_within(read_table(write_lines(tmp_path, folds)), hashes)) == 2
    visits = ["a,1,0.nii", "a,2,0.nii"]  # two visits of one subject never lie on two sides
    assert not overlaps_within(
        read_table(write_lines(tmp_path, visits, "subject_id,session_id,T1")), hashes
    )
    with pytest.raises(
        ValueError, match=r"2 tested cases were seen before: b is a \(bytes\).*--allow-leakage"
    ):
        raise_or_describe(found, allowed=False)
    assert raise_or_describe(found, allowed=True).startswith("2 tested cases were seen before")
    assert not raise_or_describe([], allowed=False)


def test_near_duplicates_in_feature_space_are_listed() -> None:
    x = (
        np.random.default_rng(0).standard_normal((20, 16)).astype(np.float32) + 50
    )  # pooled features share a mean
    x[3] = x[15] + 0.01
    found = near_duplicates([f"s{n}" for n in range(20)], x, [n < 10 for n in range(20)])
    assert [(o.test_case, o.match) for o in found] == [("s3", "s15")]
    assert found[0].evidence.startswith("features, cosine 1.000")
    folds = near_duplicates([f"s{n}" for n in range(20)], x, [True] * 20)
    assert [(o.test_case, o.match) for o in folds] == [("s3", "s15")]


def test_the_command_line_checks_and_exits_with_3(tmp_path: Path, run: Any) -> None:
    for n in range(2):
        write_noise_volume(tmp_path / f"{n}.nii", n)
    path = write_lines(tmp_path, ["IXI002,0.nii,train", "IXI012,1.nii,test"])
    assert (
        "2 rows, 2 subjects"
        in run(
            "nnunet-fm", "features", "check-table", path, "--read", "--cache", tmp_path / "c"
        ).stdout
    )
    output = run("nnunet-fm", "features", "check-leakage", path, "--cache", tmp_path / "c").stdout
    assert "0 of 1 tested rows were seen before" in output
    (tmp_path / "ids.txt").write_text("IXI012-HH-1211\n")
    words = (
        "--pretrain",
        tmp_path / "ids.txt",
        "-o",
        tmp_path / "leak.csv",
        "--cache",
        tmp_path / "c",
    )
    output = run("nnunet-fm", "features", "check-leakage", path, *words, expect=3).stdout
    assert "IXI012 is IXI012-HH-1211 (subject)" in output
    assert (tmp_path / "leak.csv").read_text().splitlines()[1] == "IXI012,IXI012-HH-1211,subject"


@pytest.mark.parametrize("line", ["{", "[]", '{"subject": "1"}'])
def test_a_manifest_of_something_else_is_refused_with_its_line(line: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text(line)
    with pytest.raises(ValueError, match=r"line 1 is no record of .*give a slice store"):
        read_seen(tmp_path / "manifest.jsonl", InputHashes(tmp_path / "memo"))
