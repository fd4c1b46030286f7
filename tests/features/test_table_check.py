from pathlib import Path

from helpers.tables import write_lines, write_noise_volume
from nnunet_fm.features import read_table
from nnunet_fm.features.content_hashes import InputHashes
from nnunet_fm.features.table_check import check_table


def test_counts_and_problems_of_a_table_are_reported(tmp_path: Path) -> None:
    for n in range(3):
        write_noise_volume(tmp_path / f"{n}.nii", n)
    (tmp_path / "bad.nii").write_bytes((tmp_path / "0.nii").read_bytes()[:5000])
    lines = ["a,0.nii,1.nii,train", "b,2.nii,,test", "c,gone.nii,bad.nii,test", "d,0.nii,,test"]
    report = check_table(
        read_table(write_lines(tmp_path, lines, "subject_id,T1,FLAIR,split")),
        InputHashes(tmp_path / "m"),
        True,
    )
    assert report.summary == [
        "4 rows, 4 subjects",
        "splits: test 3, train 1",
        "volumes: T1 4, FLAIR 2",
        "rows with all 2 modalities: 2",
    ]
    assert [p.split(":")[0] for p in report.problems] == [
        "1 missing volume",
        "1 unusable volume",
        "1 subject with two names",
    ]
    fine = check_table(
        read_table(write_lines(tmp_path, ["a,0.nii,train"])), InputHashes(tmp_path / "m"), True
    )
    assert not fine.problems
