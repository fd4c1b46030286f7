import pytest

from nnunet_fm.data.subject_ids import may_match, subject_name


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("BraTS2021_00097", "BraTS-GLI-00097-000"),
        ("UCSF-PDGM-004", "UCSF-PDGM-0004_nifti"),
        ("UCSF-PDGM-0391_FU003d", "ucsf-pdgm-391"),
        ("UPENN-GBM-00002_11", "UPENN-GBM-00002_21"),
        ("OAS1_0001_MR1", "OAS1_0001"),
        ("IXI002-Guys-0828-T1", "sub-IXI002"),
        ("TCGA_CS_4941_19960909", "TCGA-CS-4941"),
        ("002_S_0295", "sub-002_s_0295"),
    ],
)
def test_one_subject_has_one_name(first: str, second: str) -> None:
    assert subject_name(first) == subject_name(second)
    assert subject_name(first).startswith("@")
    assert may_match(subject_name(first, "here"), subject_name(second, "there"))


def test_the_same_id_in_two_datasets_is_two_subjects() -> None:
    assert not may_match(subject_name("7", "A"), subject_name("7", "B"))
    assert may_match(subject_name("7", "A"), subject_name("7"))  # on the safe side
    assert not may_match(subject_name("7", "A"), subject_name("8"))
    assert not may_match(subject_name("7"), subject_name("IXI007"))
    assert not may_match(subject_name("BraTS-MEN-00007-000"), subject_name("BraTS-GLI-00007-000"))
