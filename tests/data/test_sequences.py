import pytest

from nnunet_fm.data.sequences import (
    BRATS_SINCE_2023,
    BRATS_UNTIL_2021,
    canonical_sequence,
    match_channels,
    sequence_in_file_name,
)


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


def test_spellings_are_words_not_parts_of_words() -> None:
    assert canonical_sequence(" T1W ") == "T1"
    assert canonical_sequence("t1x") is None


def test_every_brats_name_is_a_spelling_of_one_of_four_sequences() -> None:
    for names in (BRATS_UNTIL_2021, BRATS_SINCE_2023):
        assert {canonical_sequence(name) for name in names} == {"T1", "T1c", "T2", "FLAIR"}


def test_channels_are_matched_in_any_spelling() -> None:
    assert match_channels(["T1c", "T2", "T1"], ["T2w", "t1ce", "t1", "mprage"]) == [1, 0, 2]
    assert match_channels(["PD"], ["T1"]) == [None]
