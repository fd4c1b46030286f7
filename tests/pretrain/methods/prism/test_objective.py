"""The losses of PRISM, computed again in plain words; and what each phase trains."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from helpers.pretraining import small_prism_recipe
from nnunet_fm_pretrain.data.volume_store import VolumeStore
from nnunet_fm_pretrain.methods.prism.crops import (
    CropBatches,
    acquisition_statistics,
    random_crop,
)
from nnunet_fm_pretrain.methods.prism.generator import Decoder, Style, modulated
from nnunet_fm_pretrain.methods.prism.masking import mask_blocks
from nnunet_fm_pretrain.methods.prism.recipe import CropRecipe, MaskingRecipe
from nnunet_fm_pretrain.methods.recipes import parse_recipe
from nnunet_fm_pretrain.methods.registry import get_method

PARAMETERS = ("tr_ms", "te_ms", "flip_angle_deg")


def recipe(**parts: object) -> Any:
    return parse_recipe(small_prism_recipe(**parts), "test")


def made(store: VolumeStore, **parts: object) -> tuple[Any, Any]:
    objective: Any = get_method("prism").build(recipe(**parts)).eval()
    batch = objective.batches(store, 0, 1)[0]
    return objective, batch


def pooled(x: torch.Tensor) -> torch.Tensor:
    return x.mean((2, 3, 4))


@pytest.mark.parametrize("swap", [0.0, 1.0])
def test_masking_replaces_the_share_and_nothing_else(swap: float) -> None:
    rng = np.random.default_rng(0)
    crop, other = rng.standard_normal((2, 24, 24, 24)).astype(np.float32)
    masked = mask_blocks(crop, other, MaskingRecipe(share=0.3, swap=swap), rng)
    assert 0.3 <= masked.hidden.mean() < 0.3 + 0.25**3
    assert np.array_equal(masked.voxels[~masked.hidden], crop[~masked.hidden])
    assert (masked.voxels[masked.hidden] != crop[masked.hidden]).mean() > 0.99
    from_other = (masked.voxels == other)[masked.hidden]
    assert from_other.all() if swap else not from_other.any()
    assert crop.min() <= masked.voxels[masked.hidden].min() or swap


def test_crops_are_of_all_orientations_and_small_volumes_are_surrounded(
    acquired: VolumeStore, scans: VolumeStore
) -> None:
    record = acquired.records[0]
    whole = acquired.read_volume(record)
    wide = CropRecipe(size=64, reorient=False)
    crop = random_crop(acquired, record, wide, np.random.default_rng(0))
    inside = tuple(slice((64 - n) // 2, (64 - n) // 2 + n) for n in whole.shape)
    assert np.array_equal(crop[inside], whole)
    assert np.count_nonzero(crop) == np.count_nonzero(whole)
    turned = CropRecipe(size=64)
    seen = {random_crop(acquired, record, turned, np.random.default_rng(n)).tobytes()
            for n in range(200)}  # fmt: skip
    possible = {
        np.ascontiguousarray(np.flip(crop.transpose(order), axes)).tobytes()
        for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
        for axes in ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))
    }
    assert len(possible) == 48
    assert seen <= possible
    assert len(seen) > 40


def test_a_sample_is_the_same_whatever_the_number_of_ranks(acquired: VolumeStore) -> None:
    given = recipe()
    whole = CropBatches(acquired, given, 8, 3)[1]
    halves = [CropBatches(acquired, given, 8, 3, rank, 2)[1] for rank in range(2)]
    for name in whole._fields:
        axis = 1 if name == "styles" else 0
        joined = torch.cat([getattr(half, name) for half in halves], axis)
        assert torch.equal(joined.nan_to_num(), getattr(whole, name).nan_to_num()), name


def test_acquisition_is_standardised_by_the_store(acquired: VolumeStore) -> None:
    mean, std = acquisition_statistics(acquired)
    for number, name in enumerate(PARAMETERS):
        values = [getattr(r.acquisition, name) for r in acquired.records]
        logs = [math.log(value) for value in values if value is not None]
        assert math.isclose(float(mean[number]), np.mean(logs), rel_tol=1e-5)
        assert math.isclose(float(std[number]), np.std(logs), rel_tol=1e-4)


def test_unknown_or_constant_parameters_are_predicted_by_the_mean(scans: VolumeStore) -> None:
    mean, std = acquisition_statistics(scans)
    assert mean.tolist() == [0, 0, 0]
    assert std.tolist() == [1, 1, 1]
    objective, batch = made(scans)
    parts = objective(batch, 0, "main").parts
    assert [float(parts[name]) for name in PARAMETERS] == [0, 0, 0]


@torch.no_grad()
def test_the_losses_of_the_main_phase(acquired: VolumeStore) -> None:
    objective, batch = made(acquired, objective={"regions": ["brain", "neck"], "temperature": 0.3})
    losses = objective(batch, 0, "main")
    masked, clean = objective.divide(batch.masked.float()), objective.divide(batch.clean.float())
    image = objective.reconstruct(masked)
    expected = {"reconstruction": (image - batch.clean.float()).abs().mean()}
    predicted = objective.heads["metadata"](pooled(masked.sequence))
    for number, name in enumerate(PARAMETERS):
        errors = []
        for sample in range(4):
            value = batch.acquisition[sample, number]
            if not value.isnan():
                mean, std = objective.acquisition_mean[number], objective.acquisition_std[number]
                errors.append((predicted[sample, number] - (value - mean) / std).abs())
        expected[name] = torch.stack(errors).mean()
    logits = objective.heads["region"](pooled(masked.anatomy))
    known = batch.regions >= 0
    assert 0 < known.sum() < 4
    expected["region"] = functional.cross_entropy(logits[known], batch.regions[known])
    synthetic = objective.divide(objective.translate(clean, batch.styles[0]))
    head = objective.heads["contrast"]
    a, p = (functional.normalize(head(pooled(d.anatomy)), dim=-1) for d in (clean, synthetic))
    terms = []
    for n in range(4):
        others = [m for m in range(4) if m == n or batch.subjects[m] != batch.subjects[n]]
        exponents = torch.stack([a[n] @ p[m] / 0.3 for m in others])
        terms.append(exponents.logsumexp(0) - a[n] @ p[n] / 0.3)
    expected["contrast"] = torch.stack(terms).mean()
    assert losses.parts.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses.parts[name], value, rtol=1e-4, atol=1e-5, msg=name)
    weights = {"contrast": 0.5}
    total = sum(weights.get(name, 1.0) * value for name, value in expected.items())
    torch.testing.assert_close(losses.total, total, rtol=1e-4, atol=1e-5)
    hidden = (image - batch.clean.float()).abs()[batch.hidden].mean()
    torch.testing.assert_close(losses.monitors["hidden"], hidden, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_adversarial_losses(acquired: VolumeStore) -> None:
    objective, batch = made(acquired, objective={"contrast_weight": 0})

    def judged(divided: Any) -> torch.Tensor:
        joined = objective.branches.join(*divided)
        return objective.heads["discriminator"](pooled(joined)).sigmoid()

    masked, clean = objective.divide(batch.masked.float()), objective.divide(batch.clean.float())
    reconstructed = judged(objective.divide(objective.reconstruct(masked)))
    for number, phase in ((1, "discriminator"), (2, "generator")):
        translated = objective.translate(clean, batch.styles[number])
        synthetic = judged(objective.divide(translated))
        if phase == "discriminator":
            parts = -judged(clean).log() - (1 - reconstructed).log() - (1 - synthetic).log()
        else:
            parts = -reconstructed.log() - synthetic.log()
        found = objective(batch, 0, phase).parts["adversarial"]
        torch.testing.assert_close(found, parts.mean(), rtol=1e-4, atol=1e-5, msg=phase)


def names_with_gradients(objective: Any, batch: Any, phase: str) -> set[str]:
    objective.zero_grad()
    objective(batch, 0, phase).total.backward()
    return {k for k, p in objective.named_parameters() if p.grad is not None and p.grad.any()}


def test_generated_images_are_not_followed_back_by_the_encoder_s_phases(
    acquired: VolumeStore,
) -> None:
    objective, batch = made(acquired)
    for phase in ("main", "discriminator"):
        names = names_with_gradients(objective, batch, phase)
        assert not any(name.startswith("style.") for name in names), phase
    assert not any(n.startswith("decoder.") for n in names)  # of the discriminator


@pytest.mark.parametrize("contrast", ["paper", "reference"])
def test_the_contrast_reaches_the_encoder_in_the_paper_only(
    contrast: str, acquired: VolumeStore
) -> None:
    off = {"reconstruction_weight": 0, "metadata_weight": 0}
    objective, batch = made(acquired, objective={"contrast": contrast, **off})
    owned = objective.trainable_modules("main")
    losses = objective(batch, 0, "main")
    assert ("contrast" in owned) == ("contrast" in losses.parts) == (contrast == "paper")
    if contrast == "paper":
        names = names_with_gradients(objective, batch, "main")
        assert "encoder.branches.anatomy.0.weight" in names
        assert "encoder.swin.patch_embed.proj.weight" in names
        assert "encoder.branches.sequence.0.weight" not in names
    assert "contrast" in objective(batch, 0, "generator").parts


def test_phases_of_the_steps() -> None:
    objective: Any = get_method("prism").build(recipe(objective={"generator_every": 3}))
    phases = [objective.phases(step) for step in range(4)]
    assert [("generator" in p, len(p)) for p in phases] == [
        (True, 3), (False, 2), (False, 2), (True, 3)
    ]  # fmt: skip
    late: Any = get_method("prism").build(recipe(objective={"translation_start": 5}))
    assert [len(late.phases(step)) for step in (4, 5, 6)] == [1, 2, 3]
    plain = {"adversarial_weight": 0, "contrast_weight": 0}
    assert get_method("prism").build(recipe(objective=plain)).phases(0) == ("main",)


def test_a_modulated_convolution_is_one_with_a_scaled_kernel_of_norm_1() -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv3d(6, 4, 3, padding=1, bias=False)
    x, scale = torch.randn(3, 6, 4, 5, 6), torch.randn(3, 6)
    found = modulated(x, scale, conv)
    for sample in range(3):
        kernel = conv.weight * scale[sample].view(1, -1, 1, 1, 1)
        kernel = kernel / kernel.square().sum((1, 2, 3, 4), keepdim=True).sqrt()
        expected = functional.conv3d(x[sample : sample + 1], kernel, padding=1)
        torch.testing.assert_close(found[sample : sample + 1], expected)


def test_styles_change_images_and_their_length_does_not() -> None:
    torch.manual_seed(0)
    decoder = Decoder(64)
    style = Style(decoder, 64, 2)
    x, drawn = torch.randn(2, 64, 1, 1, 1), torch.randn(2, 64)
    torch.testing.assert_close(style(drawn), style(3 * drawn))
    images = [decoder(x, style.scales_of(style(v))) for v in (drawn, drawn.flip(0))]
    assert not torch.allclose(images[0], images[1], atol=1e-3)
    assert images[0].shape == (2, 1, 32, 32, 32)
