from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from helpers.pretraining import SMALL, small_recipe, write_volume_file
from nnunet_fm_pretrain.data.prepare import prepare
from nnunet_fm_pretrain.data.prepare_group import PrepareOptions
from nnunet_fm_pretrain.data.sampling import SampleOrder
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.engine.loader import make_loader
from nnunet_fm_pretrain.methods.braindino.batches import MultiCropBatches, SliceSource
from nnunet_fm_pretrain.methods.braindino.block_masks import block_mask
from nnunet_fm_pretrain.methods.braindino.multicrop import ViewMaker, fuse, rotated_crop
from nnunet_fm_pretrain.methods.braindino.recipe import (
    BrainDinoRecipe,
    CropPair,
    FusionRecipe,
    MaskRecipe,
    ViewsRecipe,
)
from nnunet_fm_pretrain.methods.recipes import parse_recipe, read_recipe

PAIR = CropPair(global_size=64, local_size=32)
CALM = {"flip": 0.0, "blur": {"global_1": 0, "global_2": 0, "local": 0}}


def slice_of(side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    return (1 + x + 10 * y)[None]


def test_every_slice_is_seen_once_an_epoch_in_an_order_drawn_from_the_seed() -> None:
    order, other = SampleOrder(10, 4, seed=1), SampleOrder(10, 4, seed=2)
    epochs = [[order.index_of(n) for n in range(first, first + 10)] for first in (0, 10)]
    assert [sorted(e) for e in epochs] == [list(range(10))] * 2
    assert epochs[0] != epochs[1]
    assert epochs[0] != [other.index_of(n) for n in range(10)]


def test_ranks_share_the_samples_of_a_step() -> None:
    order = SampleOrder(100, 12, seed=0)
    for ranks in (1, 2, 3, 4, 6, 12):
        shared = [n for rank in range(ranks) for n in order.samples(7, rank, ranks)]
        assert shared == list(range(84, 96))
    with pytest.raises(ValueError, match="batch_size 12 on 5 devices; allowed: a multiple"):
        order.samples(0, 0, 5)
    with pytest.raises(ValueError, match="10 slices, fewer than one batch of 12"):
        SampleOrder(10, 12, 0)


@pytest.mark.parametrize("scale", [(0.32, 1.0), (0.05, 0.32)])
def test_crops_cover_the_requested_share_of_the_slice(scale: tuple[float, float]) -> None:
    maker = ViewMaker(ViewsRecipe(global_scale=scale, **CALM), 16)
    shares, aspects = [], []
    for seed in range(300):
        crop = maker(slice_of(256), PAIR, np.random.default_rng(seed)).global_crops[0][0]
        height, width = (crop[:, 0].max() - crop[:, 0].min()) / 10, crop[0].max() - crop[0].min()
        shares.append(height * width)
        aspects.append(width / height)
    assert scale[0] * 0.9 < min(shares)
    assert max(shares) < scale[1] * 1.1
    assert (
        abs(np.mean(shares) - np.mean(scale)) < 0.08
    )  # large boxes that do not fit are drawn again
    assert 0.7 < min(aspects) < max(aspects) < 1.4


def test_a_flip_is_a_flip_and_blur_blurs_the_second_global_crop() -> None:
    still = ViewMaker(ViewsRecipe(global_scale=(1, 1), aspect=(1, 1), **CALM), 16)
    flipped = ViewMaker(
        ViewsRecipe(global_scale=(1, 1), aspect=(1, 1), **(CALM | {"flip": 1.0})), 16
    )
    image = np.random.default_rng(0).standard_normal((1, 64, 64)).astype(np.float32)
    rng = np.random.default_rng
    assert np.array_equal(still(image, PAIR, rng(0)).global_crops[0], image)
    assert np.array_equal(flipped(image, PAIR, rng(0)).global_crops[0], image[:, :, ::-1])
    blur = {"global_1": 0.0, "global_2": 1.0, "local": 0.0, "kernel": 9, "sigma": (1.0, 1.0)}
    one, two = ViewMaker(ViewsRecipe(global_scale=(1, 1), aspect=(1, 1), flip=0, blur=blur), 16)(
        image, PAIR, rng(0)
    ).global_crops
    assert np.array_equal(one, image)
    assert np.allclose(two, cv2.GaussianBlur(image[0], (9, 9), 1.0))


def test_a_rotated_crop_is_the_box_of_the_turned_slice() -> None:
    image = np.random.default_rng(0).standard_normal((64, 64, 1)).astype(np.float32)
    whole = (0, 0, 64, 64)
    assert np.allclose(rotated_crop(image, whole, 64, 90), np.rot90(image[..., 0], 1), atol=1e-3)
    assert np.allclose(rotated_crop(image, whole, 64, 180), image[::-1, ::-1, 0], atol=1e-3)
    smooth = cv2.GaussianBlur(image[..., 0], (31, 31), 6)
    inner = smooth[12:44, 20:60]  # not square: width and height are scaled apart
    plain = cv2.resize(inner, (32, 32), interpolation=cv2.INTER_CUBIC)
    assert np.allclose(
        rotated_crop(smooth, (12, 20, 32, 40), 32, 0)[2:-2, 2:-2], plain[2:-2, 2:-2], atol=2e-3
    )
    assert (
        rotated_crop(np.ones((64, 64), np.float32), whole, 64, 45)[0, 0] == 0
    )  # background outside the slice


def test_views_rotate_and_flip_slices_if_the_recipe_says_so() -> None:
    def tops(**keys: float) -> list[float]:
        """Where the bright top of the slice lies: 0 at the top, 1 at the bottom."""
        maker = ViewMaker(ViewsRecipe(global_scale=(1, 1), aspect=(1, 1), **(CALM | keys)), 16)
        image = np.zeros((1, 64, 64), np.float32)
        image[0, 8:16, 24:40] = 1
        crops = [
            maker(image, PAIR, np.random.default_rng(seed)).global_crops[0][0] for seed in range(60)
        ]
        return [float((crop.sum(1) @ np.arange(64)) / crop.sum() / 63) for crop in crops]

    assert max(tops()) < 0.2
    mirrored = np.array(tops(flip_vertical=0.5)) > 0.5
    assert 15 < mirrored.sum() < 45
    assert max(tops(rotation=30)) < 0.3
    assert np.histogram(tops(rotation=180), 3, (0.1, 0.9))[0].min() > 8


def test_the_effective_blur_probabilities_are_those_of_the_paper_s_code() -> None:
    blur = read_recipe("braindino_stage1").views.blur
    assert (blur.global_1, blur.global_2, blur.local) == (0.0, 0.9, 0.5)


def test_a_local_size_off_the_grid_is_cut() -> None:
    views = ViewMaker(ViewsRecipe(local_crops=3), 16)(
        slice_of(256), CropPair(global_size=256, local_size=168), np.random.default_rng(0)
    )
    assert [c.shape for c in views.global_crops] == [(1, 256, 256)] * 2
    assert [c.shape for c in views.local_crops] == [(1, 160, 160)] * 3


def test_stage_two_draws_its_sizes_by_step() -> None:
    recipe = read_recipe("braindino_stage2").views
    maker = ViewMaker(recipe, 16)
    drawn = [maker.pair(np.random.default_rng([0, 1, step])) for step in range(2000)]
    for pair in recipe.pairs:
        assert abs(sum(p == pair for p in drawn) / 2000 - pair.probability) < 0.04
    views = maker(slice_of(256), recipe.pairs[0], np.random.default_rng(0))
    assert [c.shape for c in views.global_crops] == [(1, 512, 512)] * 2


def test_empty_crops_are_drawn_again() -> None:
    image = np.zeros((1, 128, 128), np.float32)
    image[:, :40, :40] = 1
    few = {"local_scale": (0.02, 0.05), "local_crops": 8}
    means = []
    for foreground in (0.0, 0.5):
        maker = ViewMaker(ViewsRecipe(**few, foreground=foreground), 16)
        crops = [maker(image, PAIR, np.random.default_rng(s)).local_crops for s in range(20)]
        means.append(np.mean(crops))
    assert means[1] > 3 * means[0]


def test_masks_hide_the_requested_share_of_half_the_crops() -> None:
    recipe = MaskRecipe(probability=0.5, ratio=(0.1, 0.5))
    masks = [block_mask(recipe, (16, 16), np.random.default_rng(s)) for s in range(400)]
    shares = np.array([m.mean() for m in masks])
    assert 0.42 < (shares > 0).mean() < 0.58
    assert 0.2 < shares[shares > 0].mean() < 0.32
    assert shares.max() <= 0.5
    again = block_mask(recipe, (16, 16), np.random.default_rng(3))
    assert np.array_equal(masks[3], again)
    assert not block_mask(recipe, (1, 1), np.random.default_rng(0)).any()


def batches(
    store: SliceStore, recipe: BrainDinoRecipe, rank: int = 0, ranks: int = 1
) -> MultiCropBatches:
    source = SliceSource(store, recipe.views.fusion)
    return MultiCropBatches(source, recipe, 16, rank, ranks)


def test_a_step_is_the_same_for_any_number_of_workers_ranks_and_starts(
    store: SliceStore, recipe: BrainDinoRecipe
) -> None:
    whole = [batches(store, recipe)[step] for step in range(12)]
    for workers in (1, 2):
        made = list(make_loader(batches(store, recipe), 5, 12, workers, pin=False))
        assert all(
            torch.equal(a, b)
            for one, two in zip(made, whole[5:], strict=True)
            for a, b in zip(one, two, strict=True)
        )
    for step in (0, 11):
        halves = [batches(store, recipe, rank, 2)[step] for rank in range(2)]
        for one, first, second in zip(whole[step], *halves, strict=True):
            assert torch.equal(one, torch.cat([first, second], dim=1))
    assert whole[0].global_crops.dtype == torch.float16
    other = parse_recipe(small_recipe(seed=1), "test")
    assert not torch.equal(batches(store, other)[0].local_crops, whole[0].local_crops)
    without = parse_recipe(small_recipe(views={"local_crops": 0}), "test")
    first = next(iter(make_loader(batches(store, without), 0, 1, workers=1, pin=False)))
    assert first.local_crops.shape == (0, 4, 1, 16, 16)


def test_fusion_mixes_registered_sequences_into_three_channels() -> None:
    sequences = np.stack([slice_of(16)[0], -slice_of(16)[0], np.zeros((16, 16), np.float32)])
    same = fuse(sequences[:1], FusionRecipe(spread=0.0), np.random.default_rng(0))
    assert np.allclose(same, sequences[:1].repeat(3, axis=0))
    apart = fuse(sequences, FusionRecipe(spread=0.2), np.random.default_rng(0))
    factors = [c[0, 0] / sequences[0, 0, 0] for c in apart]
    assert len({round(float(f), 4) for f in factors}) == 3
    assert all(
        np.allclose(c, f * sequences[0], atol=1e-5) for c, f in zip(apart, factors, strict=True)
    )


def test_a_batch_has_three_channels_once_fusion_is_on(tmp_path: Path) -> None:
    for number, sequence in enumerate(("t1", "flair", "t2")):
        write_volume_file(tmp_path / "mri" / "a" / f"{sequence}.nii.gz", number)
    prepare(
        tmp_path / "mri", PrepareOptions(tmp_path / "store", SMALL, registered=True), processes=1
    )
    for probability, fused in ((0.0, False), (1.0, True)):
        recipe = parse_recipe(small_recipe(views={"fusion": {"probability": probability}}), "test")
        made = batches(SliceStore(tmp_path / "store"), recipe)[0].global_crops
        assert made.shape == (2, 4, 3 if fused else 1, 32, 32)
        assert not fused or not torch.equal(made[:, :, 0], made[:, :, 1])
