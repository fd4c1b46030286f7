import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_fm.data.subject_ids import SubjectNames, may_match, subject_name


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


@settings(max_examples=60, derandomize=True, database=None, deadline=None)
@given(
    prefix=st.sampled_from(["", "S", "P-", "case_", "Ä"]),
    number=st.integers(0, 9999),
    zeros=st.integers(0, 4),
    spelling=st.sampled_from(
        ["{}", "sub-{}", " {} ", '"{}"', "'{}'", '="{}"', "{}/", "IXI/{}", "SUB-{}"]
    ),
    lower=st.booleans(),
)
def test_every_spelling_of_an_id_finds_its_subject_and_no_other(
    prefix: str, number: int, zeros: int, spelling: str, lower: bool
) -> None:
    subject = f"{prefix}{number:0{zeros}d}"
    spelled = spelling.format(subject.lower() if lower else subject)
    listed = SubjectNames([f"{prefix}{number}"])
    assert listed.find(subject_name(spelled)) == f"{prefix}{number}"
    assert listed.find(subject_name(f"{prefix}{number + 1}")) is None
    assert listed.find(subject_name(f"{prefix}x{number}")) is None
    assert may_match(subject_name(subject, "IXI"), subject_name(spelled))
    assert not may_match(subject_name(subject, "other"), subject_name(f"IXI/{subject}"))
    assert listed.comparable([subject_name(f"{prefix}{number + 1:05d}")])


def test_one_name_in_two_unicode_forms_is_one_subject() -> None:
    assert subject_name("Jose\u0301") == subject_name("JOS\u00c9")


def test_datasets_that_differ_in_marks_are_one() -> None:
    assert subject_name("7", "OASIS-1") == subject_name("7", "oasis 1")
