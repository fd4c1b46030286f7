from pathlib import Path

import pytest

from nnunet_fm.data import bids
from nnunet_fm.data.image_names import find_fault


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("a/t1.nii.gz", ""),
        ("IXI002-Guys-0828-T1.nii.gz", ""),
        ("a/Segovia_T1.nii.gz", ""),  # no word of it is `seg`
        ("a/adc.nii.gz", ""),
        ("a/aseg.nii.gz", bids.MASK),
        ("a/brainmask.nii.gz", bids.MASK),
        ("a/case_msk.nii.gz", bids.MASK),
        ("a/case_gtv.nii.gz", bids.MASK),
        ("a/GTV1.nii.gz", bids.MASK),
        ("a/case-Consensus.nii.gz", bids.MASK),
        ("a/wmh.nii.gz", bids.MASK),
        ("a/gold_standard.nii.gz", bids.MASK),
        ("a/T1_lesions2.nii.gz", bids.MASK),
        ("labelsTr/case.nii.gz", bids.MASK),
        ("Masks/case.nii.gz", bids.MASK),
        ("a/t1map.nii.gz", bids.MAP),
        ("a/T2_map.nii.gz", bids.MAP),
        ("a/flair_phase.nii.gz", bids.PHASE),
        ("derivatives/x/t1.nii.gz", bids.DERIVATIVE),
        ("sub-1/anat/sub-1_label-lesion_roi.nii.gz", bids.MASK),
        ("sub-1/anat/sub-1_desc-preproc_T1w.nii.gz", bids.DERIVATIVE),
        ("sub-1/anat/sub-1_acq-mapping_T1w.nii.gz", ""),
    ],
)
def test_words_of_names_and_folders_decide(name: str, fault: str) -> None:
    assert find_fault(Path("/masks/derivatives") / name, Path("/masks/derivatives")) == fault


def test_a_folder_of_labels_holds_no_images() -> None:
    assert find_fault(Path("/d/labelsTr/a.nii.gz"), Path("/d/labelsTr")) == bids.MASK
