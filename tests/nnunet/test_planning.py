"""The planner, on plans as nnU-Net writes them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.encoder_files import braindino, official
from nnunet_fm.encoders import load_encoder, tensors_sha256
from nnunet_fm.encoders.families.brainiac import VolumeViT
from nnunet_fm.internal.arguments import parse_key_values
from nnunet_fm.internal.config import parse_settings
from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.nnunet.frozen_configuration import presets
from nnunet_fm.nnunet.patch import check_patch
from nnunet_fm.nnunet.plan_options import PlanOptions
from nnunet_fm.nnunet.planning import write_plans
from nnunet_fm.nnunet.pretraining_overlap import seen_in_pretraining


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    stock = {
        "data_identifier": "nnUNetPlans_2d",
        "batch_size": 40,
        "patch_size": [192, 160],
        "median_image_size_in_voxels": [240.0, 200.0],
        "spacing": [1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"] * 4,
        "use_mask_for_norm": [True] * 4,
        "architecture": {
            "network_class_name": "some.UNet",
            "arch_kwargs": {"strides": [[1, 1], [2, 2], [4, 4]]},
            "_kw_requires_import": [],
        },
    }
    deep = stock | {"patch_size": [64, 64, 64], "spacing": [1.0] * 3}
    plans = {
        "plans_name": "nnUNetPlans",
        "dataset_name": "Dataset008_X",
        "configurations": {"2d": stock, "3d_fullres": deep},
    }
    (tmp_path / "nnUNetPlans_2d").mkdir()
    (tmp_path / "nnUNetPlans.json").write_text(json.dumps(plans))
    return tmp_path


def written(folder: Path, **request: object) -> tuple[dict, str]:
    found = write_plans(folder, parse_settings(PlanOptions, request, "plan"))
    return json.loads(found.path.read_text()), found.summary


@pytest.mark.parametrize("preset", sorted(presets()))
def test_every_preset_gives_a_network_that_runs(preset: str, folder: Path) -> None:
    base = presets()[preset]["base"]
    name, trainer = {
        "2d": ("dinov3_test16", "FrozenDinoTrainer"),
        "3d_fullres": ("volume_test16", "FrozenVolumeTrainer"),
    }[base]
    plans, words = written(folder, configuration=base, encoder=name, preset=preset)
    configuration = plans["configurations"][preset]
    assert configuration["inherits_from"] == base
    with torch.device("meta" if base == "3d_fullres" else "cpu"):  # 128^3 for its shape only
        network = FrozenEncoderNetwork(4, 3, **configuration["architecture"]["arch_kwargs"])
        assert network(torch.zeros(1, 4, *configuration["patch_size"])).shape[2:] == tuple(
            configuration["patch_size"]
        )
    assert "RANDOM" in words
    assert f"{preset} 0 -tr {trainer} -p FM_{name}_random" in words


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            {"configuration": "3d_fullres", "encoder": "dinov3_test16"},
            "2-D and configuration '3d_fullres' 3-D; .*or -c 2d",
        ),
        (
            {"configuration": "2d", "encoder": "volume_test16"},
            "3-D and configuration '2d' 2-D; .*or -c 3d_fullres",
        ),
        (
            {"configuration": "3d_fullres", "encoder": "volume_test16", "patch": (96, 100, 96)},
            "96x112x96",
        ),
        (
            {"configuration": "3d_fullres", "encoder": "volume_test16", "fov": "fit"},
            "for volumes: native",
        ),
        (
            {"configuration": "3d_fullres", "encoder": "volume_test16", "decoder": "primus"},
            "Allowed for it: unetr, primus3d",
        ),
        (
            {"configuration": "3d_fullres", "encoder": "volume_test16", "taps": (3, 7)},
            "allowed: four of stride 16",
        ),
        (
            {"configuration": "3d_fullres", "encoder": "volume_test16", "preset": "2d_fm256"},
            "is for -c 2d",
        ),
    ],
)
def test_slices_and_volumes_are_kept_apart(
    request_: dict[str, object], message: str, folder: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        written(folder, **request_)


def test_a_weight_file_names_the_plans_and_is_identified_by_its_hash(
    folder: Path, tmp_path: Path
) -> None:
    torch.save(braindino(official()), tmp_path / "braindino.pth")
    plans, words = written(folder, encoder=str(tmp_path / "braindino.pth"))
    assert plans["plans_name"] == "FM_braindino"
    arguments = plans["configurations"]["2d_fm256"]["architecture"]["arch_kwargs"]
    assert arguments["encoder"] == "dinov3_test16"
    assert arguments["encoder_options"] == {"norm_eps": 1e-6, "rope": "bfloat16"}
    assert arguments["taps"] == [0, 1, 2, 3]
    assert len(arguments["encoder_source"]["sha256"]) == 64
    assert "seed" not in arguments["encoder_source"]
    assert "RANDOM" not in words


def test_weights_that_come_along_are_named_by_their_card_wherever_they_lie(folder: Path) -> None:
    plans, words = written(folder, encoder="synth_vitt16")
    assert plans["plans_name"] == "FM_synth_vitt16"
    arguments = plans["configurations"]["2d_fm256"]["architecture"]["arch_kwargs"]
    assert arguments["encoder_source"].keys() == {"card", "sha256"}
    assert "RANDOM" not in words
    assert "pretrained on brains made by nnunet-fm" in words
    network = FrozenEncoderNetwork(4, 3, **arguments)
    network.load_encoder()
    _, report = load_encoder("synth_vitt16")
    assert report.card == arguments["encoder_source"]["card"]
    assert tensors_sha256(network.encoder.state_dict()) == report.sha256
    with pytest.raises(ValueError, match="synth_vitt16 names trained weights; remove --seed"):
        written(folder, encoder="synth_vitt16", seed=1)
    with pytest.raises(ValueError, match="--card x is for a weight file"):
        written(folder, encoder="synth_vitt16", card="x")


def test_field_of_view(folder: Path) -> None:
    native, words = written(folder, encoder="dinov3_test16", patch=(256,), fov="native")
    configuration = native["configurations"]["2d_fm256"]
    assert "spacing" not in configuration
    assert "nnUNetv2_preprocess" not in words
    fit, words = written(folder, encoder="dinov3_test16", patch=(128, 96), fov="fit")
    configuration = fit["configurations"]["2d_fm128x96"]
    factor = max(240 / 128, 200 / 96)
    assert configuration["spacing"] == pytest.approx([factor, factor])
    assert configuration["data_identifier"] == "nnUNetPlans_2d_fit128x96_2.083mm"
    assert "nnUNetv2_preprocess -d 8 -plans_name FM_dinov3_test16_random -c 2d_fm128x96" in words
    assert configuration["batch_size"] == round(40 * 192 * 160 / (128 * 96))


def test_ratio_and_subset_are_in_the_plans_and_their_name(folder: Path) -> None:
    plans, words = written(folder, encoder="dinov3_test16", train_ratio=0.1, subset_seed=7)
    assert plans["plans_name"] == "FM_dinov3_test16_random_r010_s7"
    assert plans["train_subset"] == {"ratio": 0.1, "seed": 7, "rule": "nested"}
    assert "10 % of the training cases" in words
    other, _ = written(folder, encoder="dinov3_test16", train_ratio=0.125, subset_rule="reference")
    assert other["plans_name"] == "FM_dinov3_test16_random_r012p50_reference"
    stock, words = written(folder, encoder="none", train_ratio=0.4)
    assert stock["plans_name"] == "FM_none_r040"
    assert set(stock["configurations"]) == {"2d", "3d_fullres"}
    assert "-tr SubsetTrainer -p FM_none_r040" in words


def test_the_stock_architecture_at_another_patch(folder: Path) -> None:
    plans, words = written(folder, encoder="none", patch=(128,), fov="fit", batch_size=4)
    configuration = plans["configurations"]["2d_stock128"]
    assert configuration["batch_size"] == 4
    assert configuration["data_identifier"] == "nnUNetPlans_2d_fit128_1.875mm"
    assert "architecture" not in configuration
    assert "2d_stock128 0 -tr SubsetTrainer -p FM_none" in words
    with pytest.raises(ValueError, match="multiples of 8"):
        written(folder, encoder="none", patch=(100,))


def test_configurations_of_one_encoder_gather_in_one_file(folder: Path) -> None:
    written(folder, encoder="dinov3_test16", patch=(64,))
    plans, _ = written(folder, encoder="dinov3_test16", patch=(128,))
    assert {"2d_fm64", "2d_fm128"} <= set(plans["configurations"])
    again, _ = written(folder, encoder="dinov3_test16", patch=(128,))
    assert again == plans
    with pytest.raises(ValueError, match="another encoder.*-o FM_dinov3_test16_random_2"):
        written(
            folder, encoder="dinov3_test16", patch=(128,), seed=1, output="FM_dinov3_test16_random"
        )
    other, _ = written(folder, encoder="dinov3_test16", patch=(128,), seed=1)
    assert other["plans_name"] == "FM_dinov3_test16_random1"
    with pytest.raises(ValueError, match="not written by nnunet-fm"):
        written(folder, encoder="dinov3_test16", output="nnUNetPlans")


@pytest.mark.parametrize(
    ("other", "different"),
    [
        ({"taps": (0, 1)}, "architecture"),
        ({"fov": "fit"}, "field_of_view"),
        ({"fusion": "fixed"}, "architecture"),
        ({"batch_size": 3}, "batch_size"),
        ({"train_ratio": 0.5}, "train_subset"),
    ],
)
def test_one_name_means_one_run(other: dict, different: str, folder: Path) -> None:
    written(folder, encoder="dinov3_test16", patch=(128,), fov="native", output="FM_x")
    before = (folder / "FM_x.json").read_text()
    with pytest.raises(ValueError, match=f"exist already, with another.*{different}"):
        written(
            folder,
            **(
                {"encoder": "dinov3_test16", "patch": (128,), "fov": "native", "output": "FM_x"}
                | other
            ),
        )
    assert (folder / "FM_x.json").read_text() == before


def test_stock_configurations_gather_too_and_ignore_nothing(folder: Path) -> None:
    written(folder, encoder="none", patch=(128,))
    plans, _ = written(folder, encoder="none", patch=(64,))
    assert {"2d", "2d_stock128", "2d_stock64"} <= set(plans["configurations"])
    for ignored in (
        {"taps": (1,)},
        {"fusion": "fixed"},
        {"decoder": "light"},
        {"card": "x"},
        {"seed": 3},
    ):
        with pytest.raises(ValueError, match="no meaning with --encoder none"):
            written(folder, encoder="none", **ignored)
    with pytest.raises(ValueError, match="--card x is for a weight file"):
        written(folder, encoder="dinov3_test16", card="x")


def test_options_reach_the_encoder(folder: Path) -> None:
    plans, _ = written(
        folder,
        encoder="dinov3_test16",
        options=parse_key_values(["qkv_bias=true", "norm_eps=1e-6"]),
    )
    arguments = plans["configurations"]["2d_fm256"]["architecture"]["arch_kwargs"]
    assert arguments["encoder_options"] == {"qkv_bias": True, "norm_eps": 1e-6}
    with pytest.raises(ValueError, match="colour"):
        written(folder, encoder="dinov3_test16", options={"colour": "red"})
    with pytest.raises(ValueError, match="KEY=VALUE"):
        parse_key_values(["qkv_bias"])


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"patch": (100,)}, "multiples of 16; nearest possible: 96x96 or 112x112"),
        ({"patch": (250, 256)}, "nearest possible: 240x256 or 256x256"),
        ({"patch": (1, 2, 3)}, "one side, or 2"),
        ({"configuration": "2D"}, "Did you mean 2d"),
        ({"configuration": "3d_fullres"}, "allowed: a 3-D encoder, or -c 2d"),
        ({"preset": "2d_fm265"}, "Did you mean 2d_fm256"),
        ({"fov": "fitted"}, "Did you mean fit"),
        ({"fusion": "fix"}, "allowed"),
        ({"decoder": "unet"}, "unknown decoder"),
        ({"taps": (1, 7)}, "from 0 to 3"),
        ({"encoder": "braindino_vitb16"}, "published weights.*--card braindino_vitb16.mri6m"),
        ({"encoder": "missing.pth"}, "does not exist"),
    ],
)
def test_impossible_requests_name_what_is_possible(
    request_: dict, message: str, folder: Path
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        written(folder, **({"encoder": "dinov3_test16"} | request_))
    assert not list(folder.glob("FM_*"))


def test_a_dataset_that_is_not_planned(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nnUNetv2_plan_and_preprocess"):
        write_plans(tmp_path, PlanOptions(encoder="dinov3_test16"))


def test_check_patch_accepts_multiples() -> None:
    check_patch([256, 16], 16)


# ---- encoders of volumes ----


def name_channels(folder: Path, *names: str) -> None:
    content = {"channel_names": {str(n): name for n, name in enumerate(names)}, "numTraining": 4}
    (folder / "dataset.json").write_text(json.dumps(content))


def arguments_of(plans: dict, configuration: str) -> dict:
    return plans["configurations"][configuration]["architecture"]["arch_kwargs"]


def test_channels_are_found_by_their_names(folder: Path) -> None:
    """BraTS 2023's order is not BM-MAE's, and a sequence may be missing."""
    name_channels(folder, "T1c", "T1n", "FLAIR", "ADC")
    request = {"configuration": "3d_fullres", "encoder": "volume_testbmmae", "preset": "3d_fm32"}
    plans, words = written(folder, **request)
    arguments = arguments_of(plans, "3d_fm32")
    assert arguments["channels"] == [1, 0, 2]
    assert arguments["encoder_options"]["modalities"] == ["T1", "T1c", "FLAIR"]
    assert arguments["fusion"] == "fixed"
    assert "channels T1 from 1, T1c from 0, FLAIR from 2" in words
    network = FrozenEncoderNetwork(4, 3, **arguments)
    x = torch.randn(1, 4, 32, 32, 32)
    torch.testing.assert_close(network.fusion(x), x[:, [1, 0, 2]])
    network.load_encoder()


def test_channels_of_no_known_name_are_refused(folder: Path) -> None:
    request = {"configuration": "3d_fullres", "preset": "3d_fm32"}
    name_channels(folder, "CT")
    with pytest.raises(
        ValueError, match=r"knows its channels by name, T1, T1c, T2, FLAIR; channel_names .* are CT"
    ):
        written(folder, encoder="volume_testbmmae", **request)
    name_channels(folder, "T1", "FLAIR")
    swin = {"encoder": "volume_testswin", "options": {"modalities": ["FLAIR", "T1c"]}}
    with pytest.raises(ValueError, match="no T1c. Allowed: usual spellings"):
        written(folder, **swin, **request)
    with pytest.raises(
        ValueError, match=r"channels \[0, 4\]; allowed: one of 0 to 3 for each of the encoder's 2"
    ):
        FrozenEncoderNetwork(
            4, 3, "volume_testswin", swin["options"], decoder="pyramid", channels=[0, 4]
        )


def test_intensities_are_those_of_the_pretraining_unless_stock_ones_are_asked_for(
    folder: Path,
) -> None:
    request = {
        "configuration": "3d_fullres",
        "encoder": "volume_testuniformer",
        "preset": "3d_fm32",
        "batch_size": 2,
    }
    plans, words = written(folder, **request)
    configuration = plans["configurations"]["3d_fm32"]
    assert configuration["normalization_schemes"] == ["RescaleTo01Normalization"] * 4
    assert configuration["use_mask_for_norm"] == [False] * 4
    assert configuration["data_identifier"] == "nnUNetPlans_2d_0_to_1"
    assert "nnUNetv2_preprocess -d 8 -plans_name FM_volume_testuniformer_random -c 3d_fm32" in words
    plans, words = written(folder, **request, intensity="stock", output="FM_stock")
    assert "normalization_schemes" not in plans["configurations"]["3d_fm32"]
    assert "intensities as nnU-Net has them; the encoder was pretrained on 0 to 1" in words
    with pytest.raises(ValueError, match="unknown intensity 'own'"):
        written(folder, **request, intensity="own")
    plans, _ = written(
        folder, configuration="3d_fullres", encoder="volume_test16", preset="3d_fm32"
    )  # z-score: nnU-Net's
    assert "data_identifier" not in plans["configurations"]["3d_fm32"]


def test_patches_of_8_voxels_get_primus_own_decoder(folder: Path) -> None:
    plans, _ = written(
        folder, configuration="3d_fullres", encoder="volume_testprimus", preset="3d_fm32"
    )
    assert arguments_of(plans, "3d_fm32")["decoder"] == "primus3d"


def test_a_patch_that_leaves_nothing_to_normalise_is_refused_before_training(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"patch 4x4x4 is too small .* allowed: from 8x8x8 on"):
        written(folder, configuration="3d_fullres", encoder="volume_testpyramid", patch=(4,))
    crop = {"encoder": "volume_testprimus", "options": {"positions": "crop"}, "patch": (40,)}
    with pytest.raises(
        ValueError, match=r"^positions 'crop' with a grid of \(5, 5, 5\); allowed: up to 4"
    ):
        written(folder, configuration="3d_fullres", **crop)
    with pytest.raises(
        ValueError, match="patch 6x6x6: all sides must be multiples of 4; nearest possible: 4x4x4"
    ):
        written(folder, configuration="3d_fullres", encoder="volume_testpyramid", patch=(6,))


class Curious(VolumeViT):
    """An encoder that looks at what it is given, with intensities of its own."""

    def __init__(self, taps: object = None) -> None:
        super().__init__(taps, image_size=48, hidden_size=24, mlp_dim=48, depth=8, num_heads=2)
        self.input_spec = replace(self.input_spec, intensity="quantiles")

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        return super().features(x if x.max().item() > 0 else x + 1)


def test_encoders_of_users_are_planned_though_they_look_at_their_data(folder: Path) -> None:
    _, words = written(
        folder, configuration="3d_fullres", encoder=f"{__name__}.Curious", preset="3d_fm32"
    )
    assert "the encoder was pretrained on quantiles, which nnU-Net does not have" in words


def test_names_of_datasets_are_words() -> None:
    assert seen_in_pretraining(["LONG579", "GLIS-RT"], "Dataset020_LongitudinalMS", "English") == []
    assert seen_in_pretraining(["BraTS2021", "TCGA-GBM"], "Dataset043_TCGA-GBM") == ["TCGA-GBM"]
    assert seen_in_pretraining(["UK-Biobank"], "Dataset001_UK_Biobank") == ["UK-Biobank"]
    assert seen_in_pretraining(["brain MRI of many cohorts"], "Dataset001_Brain") == []


def test_leakage_is_warned_of(folder: Path) -> None:
    """BraTS 2023 holds the patients of BraTS 2021; for other datasets the data are only named."""
    from nnunet_fm.nnunet.planning import _pretraining_data

    brats = folder.parent / "Dataset137_BraTS-GLI"
    (brats / "gt_segmentations").mkdir(parents=True)
    (brats / "gt_segmentations" / "case1.nii.gz").touch()
    keep, warning = _pretraining_data("bmmae_vitb16.brats2021", brats, {})
    assert "keep these apart" in keep
    assert warning.startswith("WARNING: Dataset137_BraTS-GLI looks like BraTS2021")
    lesions = brats.rename(folder.parent / "Dataset138_Lesions")
    assert len(_pretraining_data("bmmae_vitb16.brats2021", lesions, {})) == 1
    (lesions / "gt_segmentations" / "BraTS-GLI-00000-000.nii.gz").touch()
    assert (
        "BraTS2023-SSA and BraTS2023-MEN"
        in _pretraining_data("brainmvp_uniformer.mri16k", lesions, {})[1]
    )
    assert len(_pretraining_data("brainiac_vitb16.v2", brats, {"name": "BraTS"})) == 1
    assert _pretraining_data("volume_test16", brats, {}) == []
