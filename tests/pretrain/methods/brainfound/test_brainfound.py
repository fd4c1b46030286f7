"""BrainFound: the network on slabs, the contrast, and runs from end to end."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from helpers.pretraining import (
    check_resumes_bit_equal,
    small_brainfound_recipe,
    trained_by_one_and_two,
)
from nnunet_fm.encoders import build_encoder, load_encoder
from nnunet_fm.encoders.families.dinov2_keys import from_dinov2, to_dinov2
from nnunet_fm.encoders.loading.metadata import write_encoder
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.engine import checkpoints
from nnunet_fm_pretrain.engine.optimiser import make_optimiser
from nnunet_fm_pretrain.methods.braindino.multicrop import jittered, rotated_crop
from nnunet_fm_pretrain.methods.brainfound import METHOD
from nnunet_fm_pretrain.methods.brainfound.network import SlabNetworks, start_weights
from nnunet_fm_pretrain.methods.brainfound.objective import BrainFound
from nnunet_fm_pretrain.methods.brainfound.recipe import BrainFoundRecipe
from nnunet_fm_pretrain.methods.contrast import infonce
from nnunet_fm_pretrain.methods.recipes import parse_recipe
from nnunet_fm_pretrain.runs import export, pretrain

CONTRAST = {"infonce_weight": 0.1}
ONE_SEQUENCE = {**CONTRAST, "infonce_positive": "sequence"}


def recipe(**parts: object) -> BrainFoundRecipe:
    return cast(BrainFoundRecipe, parse_recipe(small_brainfound_recipe(**parts), "test"))


def test_tokens_equal_timms_where_nothing_is_masked() -> None:
    networks = SlabNetworks(recipe(), 0.0).eval()
    x = torch.randn(2, 6, 28, 42)
    tokens = networks.tokens(x)
    expected = networks.encoder.vit.forward_features(x)
    assert torch.allclose(tokens.cls, expected[:, 0], atol=1e-6)
    assert torch.allclose(tokens.patches, expected[:, 1:], atol=1e-6)
    mask = torch.zeros(2, 2, 3, dtype=torch.bool)
    mask[0, 1, 2] = True
    changed = x.clone()
    changed[0, :, 14:, 28:] += 5
    seen = [networks.tokens(image, mask).patches for image in (x, changed)]
    assert torch.equal(*seen)  # what is hidden is not seen


@pytest.mark.parametrize("sequences", [1, 2, 3])
@pytest.mark.parametrize("slices", [1, 3])
def test_the_network_of_slabs_starts_as_that_of_images_on_the_middle_slice(
    sequences: int, slices: int
) -> None:
    flat: Any = build_encoder("dinov2_test14", positions="offset").eval()
    names = ["T1", "T2", "FLAIR"][:sequences]
    made = recipe(slabs={"sequences": names, "slices": slices}, encoder={"image_size": 42})
    own = SlabNetworks(made, 0.0).encoder.eval()
    own.load_state_dict(start_weights(flat, own, made.slabs))
    slab = torch.randn(2, sequences, slices, 42, 42)
    middle = slab[:, :, slices // 2]
    if sequences != 3:
        middle = middle.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    expected = flat.vit.forward_features(middle)
    assert torch.allclose(own.vit.forward_features(slab.flatten(1, 2)), expected, atol=1e-5)


def test_official_names_and_back() -> None:
    for name in ("dinov2_vits14", "dinov2_vits14_reg4"):
        encoder = build_encoder(name, depth=4)
        again = from_dinov2({**to_dinov2(encoder.state_dict()), "mask_token": torch.zeros(1, 384)})
        assert again.tensors.keys() == encoder.state_dict().keys()
        for key, value in encoder.state_dict().items():
            assert torch.equal(again.tensors[key], value), key


def test_the_contrast_is_the_definition_and_knows_the_persons() -> None:
    torch.manual_seed(0)
    a, p = torch.randn(4, 8), torch.randn(4, 8)
    subjects = torch.tensor([0, 0, 1, 2])
    cosines = torch.nn.functional.cosine_similarity(a[:, None], p[None], dim=-1) / 0.1
    losses = []
    for i in range(4):
        against = [j for j in range(4) if j == i or subjects[j] != subjects[i]]
        losses.append(torch.logsumexp(cosines[i, against], 0) - cosines[i, i])
    assert torch.allclose(infonce(a, p, subjects, 0.1), torch.stack(losses).mean(), atol=1e-5)
    same = torch.zeros(4, dtype=torch.long)
    assert infonce(a, p, same, 0.1) == 0  # nobody else to tell a slab from


def test_positives_are_the_adjacent_slab_or_one_sequence_alone(sessions: SliceStore) -> None:
    without = BrainFound(recipe()).batches(sessions, 0, 1)[0]
    assert len(without.positives) == 0
    assert without.views.global_crops.shape == (2, 4, 6, 28, 28)
    batches = BrainFound(recipe(objective=CONTRAST)).batches(sessions, 0, 1)
    batch = batches[0]
    assert batch.positives.shape == (1, 4, 6, 28, 28)
    assert torch.equal(batch.views.global_crops, without.views.global_crops)
    batch = BrainFound(recipe(objective=ONE_SEQUENCE)).batches(sessions, 0, 1)[0]
    t1, flair = batch.positives[0].split(3, dim=1)
    assert torch.equal(t1, flair)
    halves = [BrainFound(recipe(objective=CONTRAST)).batches(sessions, r, 2)[3] for r in range(2)]
    assert torch.equal(torch.cat([h.positives for h in halves], 1), batches[3].positives)
    assert torch.equal(torch.cat([h.subjects for h in halves]), batches[3].subjects)


def test_crops_of_many_channels_rotate_and_jitter_channel_by_channel() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.random((20, 20, 9), np.float32)
    box = (2, 2, 14, 14)
    turned = rotated_crop(pixels, box, 16, 30.0)
    alone = rotated_crop(np.ascontiguousarray(pixels[..., 7]), box, 16, 30.0)
    assert np.allclose(turned[..., 7], alone, atol=1e-6)
    pixels[:5] = 0
    changed = jittered(pixels, 0.2, 3, rng)
    assert (changed[:5] == 0).all()
    scale, shift = np.polyfit(pixels[5:, :, 3].ravel(), changed[5:, :, 3].ravel(), 1)
    assert abs(np.log(scale)) <= 0.2
    assert abs(shift) <= 0.2
    own = changed[5:] - (pixels[5:] * scale + shift)
    assert np.allclose(own[..., 3:6], 0, atol=1e-4)  # the slices of one sequence alike
    assert not np.allclose(own[..., 0:3], 0, atol=1e-2)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"stage": 2}, "stage 2 is BrainDINO's"),
        ({"views": {"fusion": {"probability": 0.5}}}, "slabs.sequences are the channels"),
        ({"encoder": {"architecture": "dinov3_test16"}}, "allowed: a dinov2_"),
        ({"slabs": {"sequences": ["T1", "T1"]}}, "names one twice"),
        (
            {"slabs": {"sequences": ["T1"]}, "objective": ONE_SEQUENCE},
            "needs two slabs.sequences or more",
        ),
        ({"slabs": {"slices": 2}}, "slabs.slices"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(parts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**parts)


def test_an_image_of_no_whole_patches_is_refused() -> None:
    with pytest.raises(ValueError, match="image_size 30 for patches of 14 px; allowed: a multiple"):
        METHOD.build(recipe(encoder={"image_size": 30}))


def test_missing_sequences_are_copies_in_the_encoder_too() -> None:
    whole: Any = build_encoder("brainfound_test14", slices=3).eval()
    part: Any = build_encoder("brainfound_test14", slices=3, modalities=("FLAIR", "T2")).eval()
    part.load_state_dict(whole.state_dict())
    assert part.in_channels == 6
    assert part.input_spec.modalities == ("FLAIR", "T2")
    flair, t2 = torch.randn(2, 1, 3, 28, 28)
    copied = torch.cat([t2, t2, flair], 1)  # T1 is missing, and T2 the first that is there
    given = torch.cat([flair, t2], 1)
    assert torch.equal(part.features(given)[-1], whole.features(copied)[-1])
    assert torch.equal(part.embed(given), whole.embed(copied))
    with pytest.raises(ValueError, match="unknown modality 'PD'"):
        build_encoder("brainfound_test14", modalities=("PD",))
    with pytest.raises(ValueError, match="slices=2; allowed: 1, 3, 5"):
        build_encoder("brainfound_test14", slices=2)


def test_a_stopped_run_continues_bit_equal(sessions: SliceStore, tmp_path: Path) -> None:
    given = recipe(encoder={"drop_path": 0.2}, objective=CONTRAST, optimiser={"steps": 8})
    check_resumes_bit_equal(given, sessions.folder, tmp_path)


def test_two_ranks_equal_one_with_the_same_batch(sessions: SliceStore, tmp_path: Path) -> None:
    steps = {"steps": 3}
    still = {"drop_path": 0.0}
    content = small_brainfound_recipe(optimiser=steps, objective=CONTRAST, encoder=still)
    one, two = trained_by_one_and_two(content, sessions.folder, tmp_path)
    close = [
        torch.isclose(value, two[key], rtol=1e-3, atol=1e-5).flatten() for key, value in one.items()
    ]
    # the order of sums differs, and AdamW turns the rounding of a gradient near 0 into a step
    assert torch.cat(close).float().mean() > 0.99


def test_a_dinov2_file_is_the_start_and_the_export_is_a_brainfound_encoder(
    sessions: SliceStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flat = build_encoder("dinov2_test14")
    tensors = {**to_dinov2(flat.state_dict()), "mask_token": torch.zeros(1, 32)}
    torch.save(tensors, tmp_path / "dinov2.pth")
    card = "dinov2_test14.trained"
    warm = recipe(
        encoder={"init": str(tmp_path / "dinov2.pth"), "card": card}, optimiser={"steps": 2}
    )
    pretrain(warm, sessions.folder, tmp_path / "run", accelerator="cpu")
    assert f"a derivative of {card}" in caplog.text
    file = tmp_path / "encoder.safetensors"
    assert export(tmp_path / "run", file)["card"] == "brainfound_test14.trained"
    encoder, report = load_encoder(file)
    assert (report.architecture, report.missing) == ("brainfound_test14", [])
    assert encoder.input_spec.modalities == ("T1", "FLAIR")
    assert encoder.input_spec.slices == 3
    trained: Any = METHOD.build(warm).eval()
    trained.load_state_dict(torch.load(checkpoints.latest(tmp_path / "run"))["objective"])
    encoder.set_fused_attention(False)  # as in training on a CPU
    x = torch.randn(1, 6, 28, 28)
    assert torch.equal(encoder.embed(x), trained.teacher.tokens(x).cls)
    assert trained.teacher.encoder.mask_token.any()  # it was trained
    again = recipe(encoder={"architecture": "brainfound_test14", "init": str(file)})
    METHOD.build(again).load_encoder(encoder)
    other = recipe(slabs={"slices": 5}, encoder={"architecture": "brainfound_test14"})
    with pytest.raises(ValueError, match="on slabs of T1, FLAIR with 3 slices; allowed: the same"):
        METHOD.build(other).load_encoder(encoder)
    coarse = build_encoder("dinov2_test14", patch_size=16, image_size=64)
    with pytest.raises(ValueError, match="patches of 16 px; allowed here: 14"):
        METHOD.build(again).load_encoder(coarse)
    with pytest.raises(ValueError, match="another network; allowed: DINOv2's"):
        METHOD.build(again).load_encoder(build_encoder("dinov3_test16"))


@pytest.mark.parametrize("sequences", [None, ["T1", "T1c", "FLAIR"]])
def test_an_export_says_its_sequences_whatever_the_card_is_called(
    sequences: list[str] | None, tmp_path: Path
) -> None:
    slabs = {"sequences": sequences, "slices": 1}
    exported = METHOD.build(recipe(slabs=slabs, encoder={"image_size": 56})).export_encoder()
    about = {
        "card": exported.card,
        "architecture": exported.architecture,
        "options": dict(exported.options),
    }
    file = tmp_path / "e.safetensors"
    write_encoder(file, exported.tensors, about)
    expected = None if sequences is None else tuple(sequences)
    for card in (None, "brainfound_test14", "brainfound_test14.trained"):
        encoder, _ = load_encoder(file, card)
        assert encoder.input_spec.modalities == expected
        assert encoder.in_channels == len(expected or (None,))


def test_the_mask_token_learns_as_the_embeddings_do() -> None:
    made = METHOD.build(recipe(optimiser={"layer_decay": 0.5, "weight_decay": 0.1}))
    optimiser = make_optimiser(made.trainable_modules("main"), made.recipe.optimiser)  # type: ignore[attr-defined,arg-type]
    token: Any = made.student.encoder.mask_token  # type: ignore[attr-defined]
    (group,) = [g for g in optimiser.param_groups if any(p is token for p in g["params"])]
    assert group["weight_decay"] == 0
    cls: Any = made.student.encoder.vit.cls_token  # type: ignore[attr-defined]
    assert any(p is cls for p in group["params"])
