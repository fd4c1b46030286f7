import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_fm.data.sequences import (
    BRATS_SINCE_2023,
    BRATS_UNTIL_2021,
    SPELLINGS,
    canonical_sequence,
    match_channels,
    sequence_in_file_name,
    split_sequence,
    without_sequence,
)

EVERY_SPELLING = [(text, name) for name, texts in SPELLINGS.items() for text in texts]


@pytest.mark.parametrize(
    ("file", "sequence"),
    [
        ("BraTS-GLI-00001-000-t1c.nii.gz", "T1c"),
        ("BraTS2021_00006_t1ce.nii.gz", "T1c"),
        ("sub-01_ce-gadolinium_T1w.nii.gz", "T1c"),
        ("sub-01_T2w.nii.gz", "T2"),
        ("t2f.nii.gz", "FLAIR"),
        ("IXI033-HH-1259_T1.nii.gz", "T1"),
        ("T1POST_N4_regtoMNI.nii.gz", "T1c"),
        ("sub-01_T2starw.nii.gz", "T2*"),
        ("scan17.nii.gz", None),
    ],
)
def test_sequences_are_read_from_file_names(file: str, sequence: str | None) -> None:
    assert sequence_in_file_name(file) == sequence


def test_no_spelling_belongs_to_two_sequences() -> None:
    assert len({text for text, _ in EVERY_SPELLING}) == len(EVERY_SPELLING)


@given(
    st.sampled_from(EVERY_SPELLING),
    st.sampled_from("_-. "),
    st.sampled_from([str.lower, str.upper, str.title]),
    st.from_regex(r"(case|BraTS-GLI|Patient)_[0-9]{1,5}", fullmatch=True),
)
def test_every_spelling_means_its_sequence_alone_and_in_a_file_name(
    spelling: tuple[str, str], separator: str, case: "type[str]", subject: str
) -> None:
    text = case(re.sub(" (?![+])|(?<=[+]) ", separator, spelling[0]))
    assert canonical_sequence(text) == spelling[1]
    assert sequence_in_file_name(f"{subject}_{text}.nii.gz") == spelling[1]
    assert split_sequence(f"{subject}_{text}") == (subject, spelling[1])
    assert without_sequence(f"{subject}_{text}") == subject


def test_spellings_are_words_not_parts_of_words() -> None:
    assert canonical_sequence(" T1W ") == "T1"
    assert canonical_sequence("t1x") is None


def test_every_brats_name_is_a_spelling_of_one_of_four_sequences() -> None:
    for names in (BRATS_UNTIL_2021, BRATS_SINCE_2023):
        assert {canonical_sequence(name) for name in names} == {"T1", "T1c", "T2", "FLAIR"}


def test_channels_are_matched_in_any_spelling() -> None:
    assert match_channels(["T1c", "T2", "T1"], ["T2w", "t1ce", "t1", "mprage"]) == [1, 0, 2]
    assert match_channels(["PD"], ["T1"]) == [None]
