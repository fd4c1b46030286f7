"""Datasets that an encoder may have seen in pretraining."""

from pathlib import Path

from nnunet_fm.encoders import get_card
from nnunet_fm.nnunet.pretraining_overlap import about_weights, seen_in_pretraining


def test_dataset_names_match_whole_words_only() -> None:
    assert seen_in_pretraining(["LONG579", "GLIS-RT"], "Dataset020_LongitudinalMS", "English") == []
    assert seen_in_pretraining(["BraTS2021", "TCGA-GBM"], "Dataset043_TCGA-GBM") == ["TCGA-GBM"]
    assert seen_in_pretraining(["UK-Biobank"], "Dataset001_UK_Biobank") == ["UK-Biobank"]
    assert seen_in_pretraining(["QIN", "ULS23"], "Dataset090_ULS23") == ["ULS23"]
    assert seen_in_pretraining(["QIN"], "Dataset091_Sequins", "equine") == []
    assert seen_in_pretraining(["brain MRI of many cohorts"], "Dataset001_Brain") == []


def test_overlap_with_the_pretraining_data_is_a_warning(tmp_path: Path) -> None:
    """BraTS 2023 holds the patients of BraTS 2021; for other datasets the data are only named."""
    brats = tmp_path / "Dataset137_BraTS-GLI"
    (brats / "gt_segmentations").mkdir(parents=True)
    (brats / "gt_segmentations" / "case1.nii.gz").touch()
    licence, keep, warning = about_weights(get_card("bmmae_vitb16.brats2021"), brats, {})
    assert licence.startswith("licence of the weights: ")
    assert "keep these apart" in keep
    assert warning.startswith("WARNING: Dataset137_BraTS-GLI looks like BraTS2021")
    lesions = brats.rename(tmp_path / "Dataset138_Lesions")
    assert len(about_weights(get_card("bmmae_vitb16.brats2021"), lesions, {})) == 2
    (lesions / "gt_segmentations" / "BraTS-GLI-00000-000.nii.gz").touch()
    warning = about_weights(get_card("brainmvp_uniformer.mri16k"), lesions, {})[2]
    assert "BraTS2023-SSA and BraTS2023-MEN" in warning
    assert len(about_weights(get_card("brainiac_vitb16.v2"), brats, {"name": "BraTS"})) == 2


def test_what_is_unverified_is_said(tmp_path: Path) -> None:
    report = about_weights(get_card("dinov3dneuro_vitb16.fomo300k"), tmp_path, {})
    assert report[0] == "licence of the weights: CC BY-NC-SA 4.0"
    assert report[1].startswith("WARNING: unverified: the authors' code is not public")
