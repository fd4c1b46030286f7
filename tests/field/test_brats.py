"""BraTS data as it really comes: names of sequences and files, label schemes of the challenges."""

import pytest

from nnunet_fm.data.sequences import sequence_in_file_name


@pytest.mark.parametrize(
    ("name", "sequence"),
    [
        # contrast-enhanced, in the words of clinics, archives and data sets
        ("p7_T1_Gd", "T1c"),
        ("p7_T1_post", "T1c"),
        ("p7_T1-CE", "T1c"),
        ("p7_T1_contrast", "T1c"),
        ("p7_T1w_ce", "T1c"),
        ("p7_T1wCE", "T1c"),
        ("p7_T1+C", "T1c"),
        ("p7_T1_post_contrast", "T1c"),
        ("t1_gd", "T1c"),
        ("AX_T1_SE_POST_GD", "T1c"),
        ("p7_t1_mprage_sag_post", "T1c"),
        ("sub-7_ce-gadolinium_acq-3d_T1w", "T1c"),
        ("sub-7_ce-gd_T1w", "T1c"),
        # no agent, although a word of it is there
        ("p7_T1_pre_contrast", "T1"),
        ("p7_T1_no_contrast", "T1"),
        ("p7_T1_noncontrast", "T1"),
        ("sub-7_ses-post_T1w", "T1"),
        ("p7_T1_post_op", "T1"),
        ("GD_001_T1", "T1"),
        # two sequences in one name
        ("p7_T1_FLAIR", "T1"),
        ("p7_T2_FLAIR", "FLAIR"),
        ("sub-7_space-T1w_FLAIR", "FLAIR"),
        ("p7_FLAIR_regto_T1", "FLAIR"),
        ("p7_T1_T2", None),
        ("sub-7_ce-gd_FLAIR", "FLAIR"),
    ],
)
def test_contrast_agents_are_read_from_file_names(name: str, sequence: str | None) -> None:
    assert sequence_in_file_name(f"{name}.nii.gz") == sequence
