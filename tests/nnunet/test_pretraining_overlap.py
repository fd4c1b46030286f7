"""Datasets that an encoder may have seen in pretraining."""

from pathlib import Path

from nnunet_fm.nnunet.pretraining_overlap import seen_in_pretraining


def test_dataset_names_match_whole_words_only() -> None:
    assert seen_in_pretraining(["LONG579", "GLIS-RT"], "Dataset020_LongitudinalMS", "English") == []
    assert seen_in_pretraining(["BraTS2021", "TCGA-GBM"], "Dataset043_TCGA-GBM") == ["TCGA-GBM"]
    assert seen_in_pretraining(["UK-Biobank"], "Dataset001_UK_Biobank") == ["UK-Biobank"]
    assert seen_in_pretraining(["brain MRI of many cohorts"], "Dataset001_Brain") == []


def test_overlap_with_the_pretraining_data_is_a_warning(stock_plans: Path) -> None:
    """BraTS 2023 holds the patients of BraTS 2021; for other datasets the data are only named."""
    from nnunet_fm.nnunet.planning import _pretraining_data

    brats = stock_plans.parent / "Dataset137_BraTS-GLI"
    (brats / "gt_segmentations").mkdir(parents=True)
    (brats / "gt_segmentations" / "case1.nii.gz").touch()
    keep, warning = _pretraining_data("bmmae_vitb16.brats2021", brats, {})
    assert "keep these apart" in keep
    assert warning.startswith("WARNING: Dataset137_BraTS-GLI looks like BraTS2021")
    lesions = brats.rename(stock_plans.parent / "Dataset138_Lesions")
    assert len(_pretraining_data("bmmae_vitb16.brats2021", lesions, {})) == 1
    (lesions / "gt_segmentations" / "BraTS-GLI-00000-000.nii.gz").touch()
    assert (
        "BraTS2023-SSA and BraTS2023-MEN"
        in _pretraining_data("brainmvp_uniformer.mri16k", lesions, {})[1]
    )
    assert len(_pretraining_data("brainiac_vitb16.v2", brats, {"name": "BraTS"})) == 1
    assert _pretraining_data("volume_test16", brats, {}) == []
