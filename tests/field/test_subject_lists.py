"""Lists of subjects as laboratories have them: a subject is found however its id is spelled."""

from pathlib import Path

import pytest

from nnunet_fm.cli.main import main
from nnunet_fm_pretrain.data.exclusion import read_subjects, without_subjects
from nnunet_fm_pretrain.data.sources import Source

TESTED = ["007,a.nii,test", "012,b.nii,test", "100,c.nii,train"]


def write_tested(folder: Path, rows: list[str] | None = None) -> Path:
    path = folder / "table.csv"
    path.write_text("\n".join(["subject_id,T1,split", *(rows or TESTED)]))
    return path


# Kind: a list of pretraining subjects that names a tested subject in another spelling.
SEEN_LISTS = {
    "ids without leading zeros": "7\n99\n",
    "ids with more zeros": "0007\n",
    "ids in double quotes": '"007"\n"099"\n',
    "ids in single quotes": "'007'\n",
    "ids in Excel's text form": '="007"\n',
    "ids that became floats": "subject_id,age\n7.0,64\n,\n",
    "semicolons": "subject_id;age\n007;63,5\n",
    "semicolons, id not first, a comma in the header": "age, years;subject_id\n63,5;007\n",
    "semicolons after Excel's sep line": "sep=;\nsubject_id;age\n007;63\n",
    "vertical bars": "subject_id|age\n007|63\n",
    "a quoted header": '"subject_id"\n"007"\n',
    "quoted cells after spaces": 'subject_id, "site"\n007, "A, B"\n',
    "a column named with spaces": "age , subject_id \n63 , 007 \n",
    "the prefix of BIDS": "sub-007\n",
    "upper case prefix of BIDS": "participant_id\tage\nSUB-007\t63\n",
    "an unknown dataset": "subject_id,dataset\n007,n/a\n",
    "old Mac line ends": "subject_id,age\r007,63\r",
    "folders with a slash": "007/\n",
    "UTF-16": "subject_id,site\n007,Köln\n".encode("utf-16"),
    "UTF-16 without mark": "subject_id,site\n007,Köln\n".encode("utf-16-le"),
    "Windows-1252": "subject_id,site\n007,Köln\n".encode("cp1252"),
    "UTF-8 with mark": "subject_id\n007\n".encode("utf-8-sig"),
}


@pytest.mark.parametrize("kind", SEEN_LISTS)
def test_a_tested_subject_is_found_however_the_list_spells_it(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = SEEN_LISTS[kind]
    content = listed if isinstance(listed, bytes) else listed.encode()
    (tmp_path / "seen.csv").write_bytes(content)
    words = ["--pretrain", str(tmp_path / "seen.csv"), "--cache", str(tmp_path / "cache")]
    code = main(["features", "check-leakage", str(write_tested(tmp_path)), *words])
    assert (code, "1 of 2 tested rows" in capsys.readouterr().out) == (3, True)


# Kind: a list that cannot match because its ids have another form: no check, not a passed one.
OTHER_FORMS = {
    "folders instead of cases": "HGG\nLGG\n",
    "a prefix that the table lacks": "patient_007\n",
    "a header that is no id column": "case\nP-7\n",
    "columns separated by spaces": "subject id\nS 7\n",
}


@pytest.mark.parametrize("kind", OTHER_FORMS)
def test_a_list_in_another_form_is_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "seen.txt").write_text(OTHER_FORMS[kind])
    words = ["features", "check-leakage", str(write_tested(tmp_path))]
    words += ["--pretrain", str(tmp_path / "seen.txt"), "--cache", str(tmp_path / "cache")]
    assert main(words) == 2
    assert "is written like a subject of" in capsys.readouterr().err
    assert main([*words, "--allow-no-match"]) == 0
    assert "0 of 2 tested rows were seen before" in capsys.readouterr().out


def test_a_list_of_other_subjects_in_the_same_form_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "seen.txt").write_text("8\n013\n")
    listed = ["--pretrain", str(tmp_path / "seen.txt"), "--cache", str(tmp_path / "cache")]
    assert main(["features", "check-leakage", str(write_tested(tmp_path)), *listed]) == 0
    (tmp_path / "seen.txt").write_text("IXI002-Guys-0828\n")
    table = str(write_tested(tmp_path, ["BraTS-GLI-00001-000,a.nii,test"]))
    assert main(["features", "check-leakage", table, *listed]) == 0
    assert "0 of 1 tested rows were seen before" in capsys.readouterr().out


def test_ids_of_training_rows_do_not_make_a_list_comparable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "seen.txt").write_text("P-7\nP-8\n")
    table = str(write_tested(tmp_path, ["S07,a.nii,test", "P-9,b.nii,train"]))
    words = ["--pretrain", str(tmp_path / "seen.txt"), "--cache", str(tmp_path / "cache")]
    assert main(["features", "check-leakage", table, *words]) == 2
    assert "is written like a subject of" in capsys.readouterr().err


def test_a_list_of_excluded_subjects_names_their_dataset(tmp_path: Path) -> None:
    (tmp_path / "exclude.csv").write_text("subject_id,dataset\n7,OASIS\n8,IXI\n9,n/a\n")
    sources = [Source(subject, "IXI", "T1", Path("x")) for subject in ("007", "008", "009")]
    kept, unmatched = without_subjects(sources, read_subjects(tmp_path / "exclude.csv"))
    assert ([source.subject for source in kept], unmatched) == (["007"], ["OASIS/7"])


def test_ids_with_a_hash_are_not_cut_to_one_subject(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "seen.txt").write_text("P#1\nP#2  # a comment\n")
    table = str(write_tested(tmp_path, ["P#2,a.nii,test", "P#3,b.nii,test"]))
    words = ["--pretrain", str(tmp_path / "seen.txt"), "--cache", str(tmp_path / "cache")]
    assert main(["features", "check-leakage", table, *words]) == 3
    assert "1 of 2 tested rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    "listed", ["7\n", '"007"\n', "SUB-007\n", "ixi/7\n", "subject_id;age\n007;63,5\n", "007/\n"]
)
def test_pretraining_excludes_a_subject_however_the_list_spells_it(
    listed: str, tmp_path: Path
) -> None:
    (tmp_path / "exclude.csv").write_text(listed)
    sources = [Source(subject, "IXI", "T1", Path("x")) for subject in ("007", "008")]
    kept, unmatched = without_subjects(sources, read_subjects(tmp_path / "exclude.csv"))
    assert ([source.subject for source in kept], unmatched) == (["008"], [])


def test_pretraining_excludes_a_subject_by_its_id_in_another_collection(tmp_path: Path) -> None:
    source = Source("BraTS-GLI-00097-000", "BraTS2023", "T1", Path("x"))
    assert without_subjects([source], ["BraTS2021_00097"]) == ([], [])
    table = tmp_path / "ucsf.csv"
    table.write_text("subject_id,BraTS21 ID\nUCSF-PDGM-004,BraTS2021_00097\n")
    assert without_subjects([source], read_subjects(table))[0] == []


# Kind: a patient that a challenge or a converter numbers anew every year.
@pytest.mark.parametrize(
    ("listed", "tested"),
    [
        ("Brats17_CBICA_AAB_1", "BraTS19_CBICA_AAB_1"),
        ("Brats17_TCIA_167_1", "Brats18_TCIA08_167_1"),
        ("Brats18_2013_2_1", "BraTS19_2013_2_1"),
        ("002_S_0295", "sub-ADNI002S0295"),
    ],
)
def test_a_patient_of_two_releases_is_found(
    listed: str, tested: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "seen.txt").write_text(f"{listed}\n")
    table = write_tested(tmp_path, [f"{tested},a.nii,test", "BraTS20_Training_001,b.nii,test"])
    words = ["--pretrain", str(tmp_path / "seen.txt"), "--cache", str(tmp_path / "cache")]
    assert main(["features", "check-leakage", str(table), *words]) == 3
    assert "1 of 2 tested rows" in capsys.readouterr().out
