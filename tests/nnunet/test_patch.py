"""Patch, batch and field of view of a configuration."""

from pathlib import Path

import pytest

from helpers.plans import plan
from nnunet_fm.nnunet.patch import derive_configuration, side_label

SLICES = {
    "data_identifier": "nnUNetPlans_2d",
    "batch_size": 40,
    "patch_size": [192, 160],
    "median_image_size_in_voxels": [480.0, 200.0],
    "spacing": [0.5, 1.0],
}
VOLUMES = SLICES | {"patch_size": [64, 64, 64], "batch_size": 2, "spacing": [1.0] * 3}


def test_field_of_view(stock_plans: Path) -> None:
    native, words = plan(stock_plans, encoder="dinov3_test16", patch=(256,), fov="native")
    configuration = native["configurations"]["2d_fm256"]
    assert "spacing" not in configuration
    assert "nnUNetv2_preprocess" not in words
    request = {"encoder": "dinov3_test16", "patch": (128, 96), "fov": "fit", "device": "cuda"}
    fit, words = plan(stock_plans, **request)
    configuration = fit["configurations"]["2d_fm128x96"]
    factor = max(240 / 128, 200 / 96)
    assert configuration["spacing"] == pytest.approx([factor, factor])
    assert configuration["data_identifier"] == "nnUNetPlans_2d_fit128x96_2.083mm"
    assert "nnUNetv2_preprocess -d 8 -plans_name FM_dinov3_test16_random -c 2d_fm128x96" in words
    assert configuration["batch_size"] == round(40 * 192 * 160 / (128 * 96))


def test_the_batch_keeps_the_stock_number_of_pixels() -> None:
    configuration, report = derive_configuration(SLICES, "2d", [128], 16, "native", None)
    assert configuration == {
        "inherits_from": "2d",
        "patch_size": [128, 128],
        "batch_size": 75,  # 40 * 192 * 160 / 128**2
        "field_of_view": "native",
    }
    assert report == ["field of view native: spacing 0.5x1 mm kept"]
    large, _ = derive_configuration(VOLUMES, "3d_fullres", [128], 16, "native", None)
    assert (large["patch_size"], large["batch_size"]) == ([128] * 3, 2)  # never a single volume
    asked, _ = derive_configuration(VOLUMES, "3d_fullres", [128], 16, "native", 1)
    assert asked["batch_size"] == 1


def test_a_stack_counts_its_slices() -> None:
    configuration, _ = derive_configuration(SLICES, "2d", [64, 96], 16, "native", None, 8)
    assert configuration["patch_size"] == [8, 64, 96]
    assert configuration["batch_size"] == 25  # 40 * 192 * 160 / (8 * 64 * 96)


def test_a_fitted_field_of_view_covers_the_median_slice_in_millimetres() -> None:
    configuration, report = derive_configuration(SLICES, "2d", [128, 96], 16, "fit", 4)
    spacing = 200 / 96  # 240 mm on 128 pixels would be finer
    assert configuration["spacing"] == pytest.approx([spacing, spacing])
    size = configuration["median_image_size_in_voxels"]
    assert size == pytest.approx([240 / spacing, 96])
    assert configuration["data_identifier"] == "nnUNetPlans_2d_fit128x96_2.083mm"
    assert report[0].startswith("field of view fit: spacing 0.5x1 mm becomes 2.08x2.08 mm")
    with pytest.raises(ValueError, match="fit is for slices; for volumes: native"):
        derive_configuration(VOLUMES, "3d_fullres", [64], 16, "fit", None)


@pytest.mark.parametrize(
    ("patch", "label"),
    [((256, 256), "256"), ((256, 192), "256x192"), ((64, 64, 64), "64"), ((4, 64, 64), "4x64x64")],
)
def test_labels_of_patches(patch: tuple[int, ...], label: str) -> None:
    assert side_label(patch) == label
