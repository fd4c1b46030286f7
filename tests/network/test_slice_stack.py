"""Slices that know their neighbours: the 2.5-D network, and a 2-D encoder on volumes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.nnunet import DATASET, Run
from nnunet_fm.encoders import Encoder, build_encoder
from nnunet_fm.encoders.slicewise import SliceWise
from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.network.input_size import to_encoder_size
from nnunet_fm.network.slice_stack import FrozenEncoder25DNetwork, SliceMix
from nnunet_fm.nnunet.recipe import Recipe, parameter_groups

NAME = "dinov3_test16"


def pair(slices: int, **options: Any) -> tuple[FrozenEncoderNetwork, FrozenEncoder25DNetwork]:
    """A 2-D network and the 2.5-D one with the same weights."""
    torch.manual_seed(0)
    flat = FrozenEncoderNetwork(4, 3, NAME, **options).eval()
    mixing = FrozenEncoder25DNetwork(4, 3, NAME, mix_slices=slices, **options).eval()
    lacking = mixing.load_state_dict(flat.state_dict(), strict=False)
    assert not lacking.unexpected_keys
    assert all(k.startswith("mix.") for k in lacking.missing_keys)
    return flat, mixing


def slice_by_slice(network: FrozenEncoderNetwork, x: Tensor) -> Tensor:
    return torch.stack([network(x[:, :, z]) for z in range(x.shape[2])], 2)


def test_one_slice_is_the_two_dimensional_network() -> None:
    flat, mixing = pair(1)
    assert flat.state_dict().keys() == mixing.state_dict().keys()
    x = torch.randn(2, 4, 5, 32, 48)
    torch.testing.assert_close(mixing(x), slice_by_slice(flat, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("slices", [3, 5])
def test_it_starts_as_the_2d_network_and_then_depends_on_neighbours(slices: int) -> None:
    flat, mixing = pair(slices)
    x = torch.randn(1, 4, 7, 32, 32)
    torch.testing.assert_close(mixing(x), slice_by_slice(flat, x), rtol=1e-4, atol=1e-5)
    for mix in mixing.mix:
        torch.nn.init.normal_(mix.weight, 0, 0.3)
    changed = x.clone()
    changed[:, :, 3] += 1
    moved = (mixing(changed) - mixing(x)).abs().amax((0, 1, 3, 4)) > 1e-4
    assert moved.tolist() == [abs(z - 3) <= slices // 2 for z in range(7)]


def test_the_mix_is_a_weighted_sum_over_neighbours_with_the_ends_repeated() -> None:
    mix, x = SliceMix(2, 3), torch.randn(1, 2, 4, 1, 1)
    assert torch.equal(mix(x), x)
    torch.nn.init.normal_(mix.weight)
    w, ends = mix.weight[:, 0, :, 0, 0], torch.cat([x[:, :, :1], x, x[:, :, -1:]], 2)
    expected = sum(w[None, :, n, None, None, None] * ends[:, :, n : n + 4] for n in range(3))
    torch.testing.assert_close(mix(x), expected)


@pytest.mark.parametrize("fusion", ["learnable", "fixed"])
def test_mix_and_decoder_learn_and_the_encoder_does_not(fusion: str) -> None:
    _, network = pair(3, fusion=fusion)
    network.train()
    network.use_precision("bfloat16")
    network(torch.randn(1, 4, 3, 32, 32)).square().mean().backward()
    assert all(p.grad is None for p in network.encoder.parameters())
    assert all(p.grad.abs().sum() > 0 for p in network.mix.parameters())
    assert (network.fusion.weight.grad is None) == (fusion == "fixed")
    groups = parameter_groups(network, Recipe())
    plain = {id(p) for p in groups[1]["params"]}
    assert groups[1]["weight_decay"] == 0
    assert {id(p) for p in [network.fusion.weight, *network.mix.parameters()]} <= plain
    learning = {id(p) for p in network.parameters()} - {id(p) for p in network.encoder.parameters()}
    assert plain | {id(p) for p in groups[0]["params"]} == learning


def test_slice_wise_stacks_the_features_of_slices() -> None:
    inner = build_encoder(NAME).eval()
    encoder, x = SliceWise(inner), torch.randn(2, 3, 4, 32, 48)
    assert isinstance(encoder, Encoder)
    assert (encoder.input_spec.spatial_dims, encoder.input_spec.axis_order) == (3, "zyx")
    for tap, found in enumerate(encoder.features(x)):
        assert found.shape == (2, 32, 4, 2, 3)
        for z in range(4):
            torch.testing.assert_close(
                found[:, :, z], inner.features(x[:, :, z])[tap], rtol=1e-4, atol=1e-5
            )
    mean = torch.stack([inner.embed(x[:, :, z]) for z in range(4)]).mean(0)
    torch.testing.assert_close(encoder.embed(x), mean, rtol=1e-4, atol=1e-5)


def test_encoders_of_volumes_have_no_slices_to_mix() -> None:
    with pytest.raises(
        ValueError, match="mix_slices=3 is for encoders of slices; volume_testpyramid is one of"
    ):
        FrozenEncoder25DNetwork(1, 2, "volume_testpyramid", decoder="pyramid")
    with pytest.raises(ValueError, match="allowed: one of slices"):
        SliceWise(build_encoder("volume_testpyramid"))
    with pytest.raises(ValueError, match="3 adjacent slices; .* type: nnunet-fm features ex"):
        SliceWise(build_encoder("brainfound_test14", slices=3))
    with pytest.raises(ValueError, match="2 slices to mix, .* allowed: 1, 3, 5"):
        FrozenEncoder25DNetwork(1, 2, NAME, mix_slices=2)


def test_stacks_are_planned_trained_and_predicted(
    dataset: Path, run: Run, nnunet: dict[str, str], tmp_path: Path
) -> None:
    """On the data of the 2-D configuration; stock prediction sees the neighbours too."""
    plans, configuration, trainer = "FM_mixing", "25d_fm64", "FrozenDinoTrainer25DTest"
    plan = (
        "nnunet-fm",
        "plan",
        "-d",
        7,
        "-c",
        "2d",
        "--encoder",
        NAME,
        "--preset",
        "2d_fm64",
        "--mix-slices",
        3,
    )
    refused = run(*plan, "--patch", 3, 64, 64, expect=2).stdout
    assert (
        "3 slices to mix, in a patch of 3; allowed: 1, 3, 5, "
        "no more than the patch has, which has 4" in refused
    )
    said = run(*plan, "--patch", 4, 64, 64, "--batch-size", 2, "-o", plans).stdout
    assert "patch 4x64x64, batch 2" in said
    assert "stacks of slices, 3 mixed" in said
    assert f"nnUNetv2_train 7 {configuration} 0 -tr FrozenDinoTrainer25D -p {plans}" in said
    run(
        "nnunet-fm",
        "plan",
        "-d",
        7,
        "-c",
        "2d",
        "--encoder",
        NAME,
        "--preset",
        "2d_fm64",
        "-o",
        "FM_flat",
    )
    flat = ("nnUNetv2_train", 7, "2d_fm64", 0, "-tr", trainer, "-p", "FM_flat", "-device", "cpu")
    assert (
        "needs a configuration written by `nnunet-fm plan --mix-slices 3`"
        in run(*flat, expect=1).stdout
    )
    run("nnUNetv2_preprocess", "-d", 7, "-plans_name", plans, "-c", configuration, "-np", 1)
    run("nnUNetv2_train", 7, configuration, 0, "-tr", trainer, "-p", plans, "-device", "cpu")
    fold = (
        Path(nnunet["nnUNet_results"]) / DATASET / f"{trainer}__{plans}__{configuration}" / "fold_0"
    )
    assert torch.load(fold / "checkpoint_final.pth", weights_only=False)[
        "inference_allowed_mirroring_axes"
    ] == (1, 2)
    (case,) = (Path(nnunet["nnUNet_raw"]) / DATASET / "imagesTs").glob("*_0000.nii.gz")
    words = (
        "-d",
        7,
        "-c",
        configuration,
        "-f",
        0,
        "-tr",
        trainer,
        "-p",
        plans,
        "-device",
        "cpu",
        "-npp",
        1,
        "-nps",
        1,
    )
    words = (*words, "-i", case.parent, "--save_probabilities")
    run("nnUNetv2_predict", *words, "-o", tmp_path / "stock")
    run("nnunet-fm", "predict", *words, "-o", tmp_path / "ours", "--precision", "float32")
    name = case.name.replace("_0000.nii.gz", ".npz")
    stock, ours = (np.load(tmp_path / d / name)["probabilities"] for d in ("stock", "ours"))
    assert stock.shape == (3, 6, 48, 48)  # of three regions
    close = (
        np.abs(ours - stock) < 2e-3
    )  # stock sums in half precision, in which weights of a tile's corners vanish
    assert close.mean() > 0.98
    assert close[:, 1:-1, 8:-8, 8:-8].all()


def test_encoders_of_slabs_see_the_neighbours_of_every_slice() -> None:
    options = {"sequences": None, "slices": 3}
    network = FrozenEncoder25DNetwork(
        2, 3, "brainfound_test14", options, fusion="separate", decoder="detail", mix_slices=1
    ).eval()
    x = torch.randn(2, 2, 5, 32, 32)
    maps = network.encode(x)
    assert maps[-1].shape == (2, 2 * 32, 5, 2, 2)
    inside = to_encoder_size(x[1:, 0, 1:4], 14, 16)  # slices 1 to 3 of channel 0, around slice 2
    expected = network.encoder.features(inside)[-1]
    torch.testing.assert_close(maps[-1][1, :32, 2], expected[0])
    last = to_encoder_size(x[1:, 1, [3, 4, 4]], 14, 16)
    expected = network.encoder.features(last)[-1]
    torch.testing.assert_close(maps[-1][1, 32:, 4], expected[0])
    assert network(x).shape == (2, 3, 5, 32, 32)
    with pytest.raises(ValueError, match="sees 3 adjacent slices; allowed: --mix-slices 1"):
        FrozenEncoderNetwork(2, 3, "brainfound_test14", options)
