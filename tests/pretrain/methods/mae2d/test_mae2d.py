"""The masked autoencoder of slices: results, learning, and the export."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from scipy import ndimage

from helpers.pretraining import (
    check_resumes_bit_equal,
    small_mae2d_recipe,
    trained_by_one_and_two,
)
from nnunet_fm.cli.main import main
from nnunet_fm.data.synthetic import CONTRASTS, TISSUES, anatomy, write_image
from nnunet_fm.encoders import build_encoder, load_encoder
from nnunet_fm.encoders.families.dinov3 import TRAINING_CODE
from nnunet_fm_pretrain.data.prepare import prepare
from nnunet_fm_pretrain.data.prepare_group import PrepareOptions
from nnunet_fm_pretrain.data.preprocessing import Preprocessing
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.engine import checkpoints
from nnunet_fm_pretrain.engine.loader import make_loader
from nnunet_fm_pretrain.engine.loop import Engine
from nnunet_fm_pretrain.methods.mae2d import METHOD
from nnunet_fm_pretrain.methods.mae2d.batches import Mae2dBatch, Mae2dBatches
from nnunet_fm_pretrain.methods.mae2d.objective import Mae2d, encode_visible
from nnunet_fm_pretrain.methods.mae2d.recipe import Mae2dRecipe
from nnunet_fm_pretrain.methods.recipes import parse_recipe
from nnunet_fm_pretrain.methods.reconstruction import mean_over
from nnunet_fm_pretrain.runs import export, pretrain


def recipe(**parts: object) -> Mae2dRecipe:
    return cast(Mae2dRecipe, parse_recipe(small_mae2d_recipe(**parts), "test"))


def test_all_patches_visible_equals_timm() -> None:
    encoder: Any = build_encoder("dinov3_test16", **TRAINING_CODE, init_values=0.1).eval()
    x = torch.randn(2, 3, 32, 48)
    everything = torch.arange(6).expand(2, 6)
    expected = encoder.vit.forward_features(x)
    assert torch.allclose(encode_visible(encoder, x, everything), expected, atol=1e-5)


def test_hidden_patches_do_not_reach_the_prediction() -> None:
    made = Mae2d(recipe()).eval()
    visible = torch.tensor([[0, 5, 9, 15]])
    crops = torch.randn(1, 1, 32, 32)
    changed = crops.clone()
    changed[..., 8:16, 16:24] += 5  # patch 6 of a grid of 4
    first, second = made.reconstruct(crops, visible), made.reconstruct(changed, visible)
    assert first.shape == (1, 16, 64)
    assert torch.equal(first, second)
    changed[..., 8:16, 8:16] += 5  # patch 5 is visible
    assert not torch.allclose(first, made.reconstruct(changed, visible))


def test_targets_are_the_hidden_patches_with_contrast() -> None:
    made = Mae2d(recipe())
    crops = torch.randn(1, 1, 32, 32)
    crops[..., 8:16, :] = 0  # the second row of patches
    pixels, counted = made.targets(crops, torch.tensor([[0, 15]]))
    expected = [n not in (0, 15) and n // 4 != 1 for n in range(16)]
    assert counted[0].tolist() == expected
    patch = crops[0, 0, 16:24, 24:32].flatten()  # patch 11
    assert torch.allclose(pixels[0, 11], (patch - patch.mean()) / patch.std(), atol=1e-4)
    plain = Mae2d(recipe(objective={"normalise_pixels": False}))
    assert torch.equal(plain.targets(crops, torch.tensor([[0, 15]]))[0][0, 11], patch)
    values = torch.ones(1, 16)
    assert mean_over(values, counted) == 1
    assert mean_over(values, torch.zeros_like(counted)) == 0


def test_a_step_is_the_same_for_any_number_of_workers_and_ranks(store: SliceStore) -> None:
    given = recipe()
    whole = [Mae2dBatches(store, given, 8)[step] for step in range(3)]
    for made, plain in zip(
        make_loader(Mae2dBatches(store, given, 8), 1, 3, workers=1, pin=False),
        whole[1:],
        strict=True,
    ):
        assert torch.equal(made.crops, plain.crops)
        assert torch.equal(made.visible, plain.visible)
    halves = [Mae2dBatches(store, given, 8, rank, 2)[2] for rank in range(2)]
    assert torch.equal(torch.cat([half.crops for half in halves]), whole[2].crops)
    assert torch.equal(torch.cat([half.visible for half in halves]), whole[2].visible)
    assert whole[0].visible.shape == (4, 4)  # a quarter of 16
    assert (whole[0].visible.diff(dim=1) > 0).all()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"views": {"size": 36}}, "views.size 36 for patches of 8 px; allowed: a multiple"),
        ({"objective": {"mask_ratio": 0.99}}, "leaves 0 of 16 patches visible"),
        ({"objective": {"decoder_heads": 3}}, "decoder_width 16 for 3 heads"),
        ({"encoder": {"architecture": "dinov2_test14"}}, "allowed: a dinov3_"),
    ],
)
def test_what_does_not_fit_is_refused(store: SliceStore, parts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mae2d(recipe(**parts)).batches(store, 0, 1)


def test_a_reconstruction_no_better_than_zero_is_reported() -> None:
    made = Mae2d(recipe())
    assert made.collapse_warning({"reconstruction": 0.5, "predict_zero": 1.0}) is None
    warning = made.collapse_warning({"reconstruction": 0.999, "predict_zero": 1.0})
    assert warning == "the reconstruction is no better than predicting zero (99.9% of its loss)"


def brains(folder: Path, seeds: range) -> SliceStore:
    """A store of synthetic brains with the contrast of T1."""
    folder.mkdir()
    for seed in seeds:
        tissues = anatomy(np.random.default_rng(seed), (16, 56, 48))
        means = dict(zip(TISSUES, CONTRASTS["T1"], strict=True))
        image = np.sum([part * means[tissue] for tissue, part in tissues.items()], axis=0)
        inside = np.sum(list(tissues.values()), axis=0) > 0.5
        smooth = ndimage.gaussian_filter(image, (0.3, 0.7, 0.7)) * inside
        write_image((smooth * 1000).astype(np.int16), (9.0, 3.0, 3.0), folder / f"S{seed}.nii.gz")
    options = PrepareOptions(folder / "store", Preprocessing(size=48, slices=24))
    prepare(folder, options, processes=1)
    return SliceStore(folder / "store")


def test_it_learns_more_than_zero_and_the_mean_image_on_unseen_brains(tmp_path: Path) -> None:
    train, unseen = brains(tmp_path / "train", range(12)), brains(tmp_path / "test", range(90, 92))
    flat = {"weight_decay": 0.0, "layer_decay": 1.0, "patch_embed_lr": 1.0}
    decoder = {"decoder_width": 64, "decoder_depth": 2, "decoder_heads": 2}
    given = recipe(
        views={"size": 48, "scale": [1.0, 1.0], "aspect": [1.0, 1.0], "flip": 0.0},
        objective=decoder,
        optimiser={"steps": 300, "batch_size": 16, "peak_lr": 2e-3, "warmup_steps": 10, **flat},
        run={"save_every": 1000, "log_every": 250, "checkpointing": False},
    )
    engine = Engine(METHOD, given, train, tmp_path / "run", None, Fabric(accelerator="cpu"))
    engine.train()
    made = cast(Mae2d, engine.objective).eval()
    with torch.no_grad():
        seen = stack(Mae2dBatches(train, given, 8)[step] for step in range(10))
        held_out = stack(Mae2dBatches(unseen, given, 8)[step] for step in range(2))
        predicted = made.reconstruct(held_out.crops, held_out.visible)
        target, counted = made.targets(held_out.crops, held_out.visible)
        mean_image = made.targets(seen.crops, seen.visible)[0].mean(0, keepdim=True)
        losses = {
            name: float(mean_over(((guess - target) ** 2).mean(-1), counted))
            for name, guess in (
                ("model", predicted),
                ("zero", torch.zeros_like(target)),
                ("mean image", mean_image.expand_as(target)),
            )
        }
    assert losses["model"] < 0.9 * min(losses["zero"], losses["mean image"]), losses


def stack(batches: Any) -> Mae2dBatch:
    crops, visible = zip(*batches, strict=True)
    return Mae2dBatch(torch.cat(crops).float(), torch.cat(visible))


def test_a_stopped_run_continues_bit_equal(store: SliceStore, tmp_path: Path) -> None:
    given = recipe(encoder={"drop_path": 0.2})
    check_resumes_bit_equal(given, store.folder, tmp_path)


def test_two_ranks_equal_one_with_the_same_batch(store: SliceStore, tmp_path: Path) -> None:
    content = small_mae2d_recipe(optimiser={"steps": 3})
    one, two = trained_by_one_and_two(content, store.folder, tmp_path)
    assert one.keys() == two.keys()
    close = [
        torch.isclose(value, two[key], rtol=1e-3, atol=1e-5).flatten() for key, value in one.items()
    ]
    # the order of sums differs, and AdamW turns the rounding of a gradient near 0 into a step
    assert torch.cat(close).float().mean() > 0.99


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_an_export_is_loaded_without_further_options(
    store: SliceStore, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(recipe(optimiser={"steps": 2}), store.folder, tmp_path / "run", accelerator="cpu")
    file = tmp_path / f"encoder{ending}"
    card = export(tmp_path / "run", file)
    assert (card["card"], card["method"]) == ("dinov3_nano8.trained", "mae2d")
    encoder, report = load_encoder(file)
    assert (report.card, report.missing) == ("dinov3_nano8.trained", [])
    made = METHOD.build(recipe())
    made.load_state_dict(torch.load(checkpoints.latest(tmp_path / "run"))["objective"])
    trained: Any = made.eval()
    encoder.set_fused_attention(False)  # as in training on a CPU
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(encoder.embed(x), trained.encoder.embed(x))
    assert main(["encoders", "verify", str(file)]) == 0
    assert "dinov3_nano8.trained" in capsys.readouterr().out
    warm = recipe(encoder={"init": str(file)}, optimiser={"steps": 2})
    assert pretrain(warm, store.folder, tmp_path / "warm", accelerator="cpu")
