"""What the recipes take from DINOv3's code, measured; each beside what earlier versions did."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers import plain_losses as plain
from helpers.koleo_ranks import koleo_of_ranks, rows
from helpers.pretraining import check_resumes_bit_equal, small_recipe
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.engine.optimiser import make_optimiser
from nnunet_fm_pretrain.methods.braindino.batches import MultiCropBatches, SliceSource
from nnunet_fm_pretrain.methods.braindino.block_masks import exact_block_mask, patches_to_hide
from nnunet_fm_pretrain.methods.braindino.masked_forward import draw_stretch, forward_tokens
from nnunet_fm_pretrain.methods.braindino.objective import BrainDino
from nnunet_fm_pretrain.methods.braindino.recipe import BrainDinoRecipe, MaskRecipe
from nnunet_fm_pretrain.methods.recipes import parse_recipe, read_recipe

OFFICIAL: dict[str, Any] = {
    "encoder": {
        "initialisation": "dinov3",
        "drop_path_blocks": "constant",
        "rope_rescale_draw": "block",
    },
    "objective": {"masks": {"draw": "batch"}, "koleo_neighbours": "rank"},
    "optimiser": {"token_decay": True},
}


def objective(**parts: Any) -> BrainDino:
    return BrainDino(recipe(**parts))


def recipe(**parts: Any) -> BrainDinoRecipe:
    made = parse_recipe(small_recipe(**parts), "test")
    assert isinstance(made, BrainDinoRecipe)
    return made


def kept_shares(made: BrainDino, samples: int, draws: int) -> np.ndarray:
    """Share of the samples that keep each block's residual: blocks x draws."""
    found = []
    x = torch.ones(samples, 3, 2)
    for block in made.student.encoder.vit.blocks:
        layers = [block.drop_path1, block.drop_path2] * (draws // 2)
        found.append([float((layer(x)[:, 0, 0] != 0).float().mean()) for layer in layers])
    return np.array(found)


def test_every_block_drops_the_same_number_of_samples() -> None:
    torch.manual_seed(0)
    constant = kept_shares(objective(**OFFICIAL).train(), 10, 40)
    assert (np.abs(constant - 0.8) < 1e-6).all()
    rising = kept_shares(objective().train(), 400, 40)
    assert np.abs(rising.mean(1) - [1, 1 - 0.2 / 3, 1 - 0.4 / 3, 0.8]).max() < 0.02
    assert rising[3].std() > 0


def test_a_residual_keeps_its_mean_and_reaches_every_sample_in_turn() -> None:
    layer = objective(**OFFICIAL).train().student.encoder.vit.blocks[0].drop_path1
    torch.manual_seed(0)
    kept = torch.stack([layer(torch.ones(7, 1, 1))[:, 0, 0] for _ in range(400)])
    assert torch.allclose(kept.sum(1), torch.full((400,), 7.0))  # 5 of 7, times 7 / 5
    assert (kept.mean(0) - 1).abs().max() < 0.15
    alone = layer(torch.ones(1, 1, 1))
    assert alone == 1  # one sample is never dropped
    layer.eval()
    assert torch.equal(layer(torch.ones(7, 1, 1)), torch.ones(7, 1, 1))


def test_checkpointing_changes_no_gradient() -> None:
    made = [objective(**OFFICIAL, run={"checkpointing": on}).train() for on in (False, True)]
    found = []
    for one in made:
        torch.manual_seed(0)
        x = torch.randn(4, 3, 32, 32)
        torch.manual_seed(1)
        one._student_tokens(x).cls.square().sum().backward()
        found.append([p.grad for p in one.student.encoder.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@torch.no_grad()
def test_weights_are_initialised_as_in_dinov3() -> None:
    wide = {"architecture": "dinov3_nano8"}
    official = objective(encoder={**OFFICIAL["encoder"], **wide}).student.encoder
    earlier = objective(encoder=wide).student.encoder
    for number, (ours, timm) in enumerate(
        zip(official.vit.blocks, earlier.vit.blocks, strict=True)
    ):
        for name in ("attn.proj", "mlp.fc2"):
            last, scaled = ours.get_submodule(name), timm.get_submodule(name)
            assert float(last.weight.std()) == pytest.approx(0.02, rel=0.03)
            smaller = 0.02 / math.sqrt(2 * (number + 1))
            assert float(scaled.weight.std()) == pytest.approx(smaller, rel=0.03)
        assert float(ours.attn.qkv.weight.std()) == pytest.approx(0.02, rel=0.03)
        assert float(ours.mlp.fc1.weight.std()) == pytest.approx(0.02, rel=0.03)
        assert not any(m.bias.any() for m in (ours.attn.proj, ours.mlp.fc1, ours.mlp.fc2))
        assert torch.equal(ours.gamma_1, torch.full_like(ours.gamma_1, 0.1))
    patches = official.vit.patch_embed.proj
    limit = 1 / math.sqrt(3 * 8**2)
    assert 0.95 * limit < float(patches.weight.abs().max()) <= limit
    assert float(patches.weight.std()) == pytest.approx(limit / math.sqrt(3), rel=0.03)
    assert float(official.vit.reg_token.std()) == pytest.approx(0.02, rel=0.2)
    assert not official.mask_token.any()
    assert earlier.mask_token.any()


def test_teacher_and_student_begin_equal() -> None:
    made = objective(**OFFICIAL)
    for key, value in made.student.state_dict().items():
        assert torch.equal(made.teacher.state_dict()[key], value), key


def test_the_stretch_is_log_uniform() -> None:
    torch.manual_seed(0)
    drawn = torch.cat([draw_stretch(2.0) for _ in range(4000)]).float().log() / math.log(2)
    assert drawn.min() > -1.01
    assert drawn.max() < 1.01
    counts = np.histogram(drawn, 4, (-1.01, 1.01))[0]
    assert counts.min() > 900


def test_every_block_has_positions_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made = objective(**OFFICIAL).train()
    encoder = made.student.encoder
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(
        encoder, "run_block", lambda block, x, rope: (seen.append(rope), block(x, rope=rope))[1]
    )
    made._student_tokens(torch.randn(2, 3, 32, 32))
    assert len(seen) == len(encoder.vit.blocks)
    assert len({tuple(table.flatten().tolist()) for table in seen}) == len(seen)
    made.eval()
    seen.clear()
    made._student_tokens(torch.randn(2, 3, 32, 32))
    assert all(torch.equal(table, encoder.bfloat16_table((2, 2))) for table in seen)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_stretched_coordinates_are_those_of_a_larger_field_of_view(factor: float) -> None:
    encoder = objective().student.encoder
    stretch = torch.tensor([factor], dtype=torch.bfloat16)  # exact in bfloat16
    table = encoder.bfloat16_table((4, 4), stretch).float()
    periods = encoder.vit.rope.periods.float()
    centres = (torch.arange(4) + 0.5) / 4 * 2 - 1
    angles = 2 * math.pi * factor * centres[:, None] / periods
    rows_of_first_column = table[::4, : len(periods)]
    assert torch.allclose(rows_of_first_column, angles.sin(), atol=0.06)


def test_exactly_half_of_the_crops_are_masked_and_the_shares_are_spread_evenly() -> None:
    numbers = patches_to_hide(MaskRecipe(), 64, 256, np.random.default_rng(0))
    assert (numbers > 0).sum() == 32
    expected = (np.linspace(0.1, 0.5, 33)[1:] * 256).astype(int)
    assert sorted(numbers[numbers > 0]) == expected.tolist()
    assert numbers.argmax() != 31  # in random order
    odd = patches_to_hide(MaskRecipe(), 7, 256, np.random.default_rng(0))
    assert (odd > 0).sum() == 3
    assert not patches_to_hide(MaskRecipe(probability=0), 8, 256, np.random.default_rng(0)).any()


@pytest.mark.parametrize("masked", [0, 1, 3, 25, 128, 255, 256])
def test_a_mask_hides_exactly_what_is_asked(masked: int) -> None:
    for seed in range(5):
        mask = exact_block_mask((16, 16), masked, np.random.default_rng(seed))
        assert mask.sum() == masked
    again = exact_block_mask((16, 16), masked, np.random.default_rng(4))
    assert np.array_equal(mask, again)


def test_masks_of_a_step_are_the_same_for_any_number_of_ranks(store: SliceStore) -> None:
    given = recipe(views={"pairs": [{"global_size": 128, "local_size": 16}]}, **OFFICIAL)
    source = SliceSource(store, given.views.fusion)
    for step in range(3):
        whole = MultiCropBatches(source, given, 16)[step].masks
        hidden = whole.flatten(2).sum(2)
        expected = [0] * 4 + [int(64 * share) for share in (0.2, 0.3, 0.4, 0.5)]
        assert sorted(hidden.flatten().tolist()) == expected
        halves = [MultiCropBatches(source, given, 16, rank, 2)[step].masks for rank in range(2)]
        assert torch.equal(torch.cat(halves, dim=1), whole)
    crops = [
        MultiCropBatches(source, recipe(views=given.views.model_dump(), **parts), 16)[1]
        for parts in ({}, OFFICIAL)
    ]
    assert torch.equal(crops[0].global_crops, crops[1].global_crops)
    assert not torch.equal(crops[0].masks, crops[1].masks)


def test_koleo_looks_within_a_rank_or_over_all(tmp_path: Path) -> None:
    found = koleo_of_ranks(tmp_path)
    given = rows().double()
    within = [sum(plain.koleo(crop[part]) for crop in given) for part in (slice(2), slice(2, 4))]
    over_all = sum(plain.koleo(crop) for crop in given)
    for rank in range(2):
        assert found[rank]["rank"][0] == pytest.approx(float(within[rank]), rel=1e-5)
        assert found[rank]["all"][0] == pytest.approx(float(over_all), rel=1e-5)
    assert float(over_all) > float(sum(within)) / 2 + 1


def test_koleo_within_a_rank_needs_two_slices_there(store: SliceStore) -> None:
    made = objective(**OFFICIAL)
    made.batches(store, 0, 2)
    with pytest.raises(ValueError, match=r"batch_size 4 on 4 devices .* optimiser.batch_size=8"):
        made.batches(store, 0, 4)
    objective().batches(store, 0, 4)


@pytest.mark.parametrize("decayed", [False, True])
def test_tokens_decay_if_asked_for(decayed: bool) -> None:
    made = objective(optimiser={"token_decay": decayed, "weight_decay": 0.5})
    groups = make_optimiser(made.trainable_modules("main"), made.recipe.optimiser).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    encoder = made.student.encoder
    for token in (encoder.mask_token, encoder.vit.cls_token, encoder.vit.reg_token):
        assert decay[id(token)] == (0.5 if decayed else 0)
    assert decay[id(encoder.vit.norm.weight)] == decay[id(encoder.vit.blocks[0].gamma_1)] == 0


@pytest.mark.parametrize("name", ["braindino_stage1", "braindino_stage2", "braindino_vits_1gpu"])
def test_the_shipped_recipes_follow_dinov3(name: str) -> None:
    made = read_recipe(name)
    assert isinstance(made, BrainDinoRecipe)
    for part, keys in OFFICIAL.items():
        given = getattr(made, part).model_dump()
        for key, value in keys.items():
            if key == "koleo_neighbours":
                value = "all" if name == "braindino_stage2" else "rank"
            if isinstance(value, dict):
                assert value.items() <= given[key].items()
            else:
                assert given[key] == value, key


def test_what_the_paper_leaves_open_is_flexict_s() -> None:
    first, second = read_recipe("braindino_stage1"), read_recipe("braindino_stage2")
    assert isinstance(first, BrainDinoRecipe)
    assert isinstance(second, BrainDinoRecipe)
    assert first.objective.teacher_temperature_steps == 30_000
    assert first.objective.freeze_last_layer_steps == 3000
    assert second.objective.momentum == (0.999, 0.999)
    assert second.objective.teacher_temperature == (0.07, 0.07)
    assert (second.optimiser.peak_lr, second.optimiser.final_lr) == (5e-5, 5e-5)


def test_recipes_without_the_keys_mean_what_earlier_versions_did() -> None:
    made = recipe()
    encoder, settings = made.encoder, made.objective
    assert (encoder.initialisation, encoder.drop_path_blocks) == ("timm", "rising")
    assert encoder.rope_rescale_draw == "pass"
    assert (settings.masks.draw, settings.koleo_neighbours) == ("crop", "all")
    assert not made.optimiser.token_decay


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"encoder": {"drop_path_blocks": "linear"}}, "unknown encoder.drop_path_blocks 'linear'"),
        ({"encoder": {"initialisation": "dino"}}, "Did you mean dinov3"),
        ({"objective": {"koleo_neighbours": "ranks"}}, "Did you mean rank"),
        ({"objective": {"masks": {"draw": "step"}}}, "Allowed: batch, crop"),
        ({"optimiser": {"token_decay": "some"}}, "optimiser.token_decay"),
    ],
)
def test_other_values_are_refused(parts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**parts)


def test_the_official_settings_train(store: SliceStore) -> None:
    made = objective(**OFFICIAL).train()
    batch = made.batches(store, 0, 1)[0]
    losses = made(batch, 0, "main")
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert made.student.encoder.mask_token.grad.abs().sum() > 0  # type: ignore[union-attr]
    with torch.no_grad():
        tokens = forward_tokens(made.teacher.encoder, torch.zeros(1, 3, 32, 32))
    assert tokens.cls.shape == (1, 32)


def test_a_stopped_run_continues_bit_equal(store: SliceStore, tmp_path: Path) -> None:
    optimiser = {"steps": 3, "warmup_steps": 1, "token_decay": True}
    given = recipe(**{**OFFICIAL, "optimiser": optimiser}, run={"save_every": 2})
    check_resumes_bit_equal(given, store.folder, tmp_path)
