"""The losses of VolTA-3D against their definitions, and steps in micro-batches."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import log_softmax, normalize, softmax

from helpers.pretraining import small_volta3d_recipe, trained_on
from nnunet_fm_pretrain.data.volume_store import VolumeStore
from nnunet_fm_pretrain.engine.objective import Losses
from nnunet_fm_pretrain.methods.recipes import parse_recipe
from nnunet_fm_pretrain.methods.registry import get_method
from nnunet_fm_pretrain.methods.self_distillation import spread
from nnunet_fm_pretrain.methods.volta3d.batches import Volta3dBatch


def built(**parts: object) -> Any:
    content = small_volta3d_recipe(**parts)
    return get_method("volta3d").build(parse_recipe(content, "test")).double().train()


@pytest.fixture(scope="module")
def batch(unit_volumes: VolumeStore) -> Volta3dBatch:
    first: Volta3dBatch = built().batches(unit_volumes, 0, 1)[0]
    return first


def plain_losses(made: Any, batch: Volta3dBatch) -> dict[str, Tensor]:
    """The equations of section II.B, term by term."""
    cold, warm = made.teacher_temperature(0), 0.1
    head, teacher_head = made.student.head, made.teacher.head

    def probabilities(name: str, tokens: Tensor) -> Tensor:
        layer = teacher_head.last_layer if name == "global" else teacher_head.patch_last_layer
        logits = teacher_head(tokens) @ normalize(layer, dim=-1).T
        return softmax((logits - getattr(made, f"{name}_centre")) / cold, dim=-1)

    def likely(name: str, tokens: Tensor) -> Tensor:
        layer = head.last_layer if name == "global" else head.patch_last_layer
        return log_softmax(head(tokens) @ normalize(layer, dim=-1).T / warm, dim=-1)

    taught = [made.teacher.tokens(crop.double()).patches for crop in batch.teacher]
    seen = [made.student.tokens(crop.double()) for crop in batch.corrupted]
    local = [made.student.tokens(crop.double()) for crop in batch.local]
    students = [made.student.summariser(view.patches) for view in (*seen, *local)]
    teachers = [made.teacher.summariser(tokens) for tokens in taught]
    pairs = [
        -(probabilities("global", t) * likely("global", s)).sum(-1).mean()
        for i, t in enumerate(teachers)
        for j, s in enumerate(students)
        if i != j
    ]
    patches = [
        -(probabilities("patch", t) * likely("patch", s.patches)).sum(-1).mean()
        for t, s in zip(taught, seen, strict=True)
    ]
    errors = []
    for view, clean, hidden in zip(seen, batch.student, batch.hidden, strict=True):
        voxels = hidden.repeat_interleave(8, 1).repeat_interleave(8, 2).repeat_interleave(8, 3)
        predicted = made.decoder(made.student.encoder.as_map(*view))[:, 0]
        errors.append((predicted - clean[:, 0].double())[voxels] ** 2)
    return {
        "global": sum(pairs) / len(pairs),
        "patch": sum(patches) / 2,
        "reconstruction": torch.cat(errors).mean(),
    }


def test_the_losses_are_those_of_the_paper(batch: Volta3dBatch) -> None:
    made = built()
    with torch.no_grad():
        made.global_centre.normal_()
        made.patch_centre.normal_()
        losses: Losses = made(batch, 0, "main")
        expected = plain_losses(made, batch)
    assert losses.parts.keys() == {*expected, "predict_zero"}
    for name, value in expected.items():
        torch.testing.assert_close(losses.parts[name], value, rtol=1e-9, atol=1e-12)
    total = expected["global"] + expected["patch"] + 100 * expected["reconstruction"]
    torch.testing.assert_close(losses.total, total, rtol=1e-9, atol=1e-12)


def test_one_volume_at_a_time_gives_the_gradients_and_the_centre_of_all_at_once(
    batch: Volta3dBatch,
) -> None:
    states = []
    for size in (None, 1, 2):
        made = built(run={"micro_batch": size})
        parts = made.micro_batches(batch)
        assert len(parts) == 4 // (size or 4)
        for part in parts:
            (made(part, 0, "main").total / len(parts)).backward()
        gradients = {k: p.grad for k, p in made.named_parameters() if p.grad is not None}
        made.before_step(0, "main")
        made.after_step(0)
        states.append((gradients, {k: b.clone() for k, b in made.named_buffers()}))
    for gradients, buffers in states[1:]:
        # the positions of local crops are resized in float32
        torch.testing.assert_close(gradients, states[0][0], rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(buffers, states[0][1], rtol=1e-9, atol=1e-12)
    assert states[0][1]["global_centre"].abs().max() > 0


def test_a_skipped_step_moves_nothing_and_leaves_nothing_behind(batch: Volta3dBatch) -> None:
    made, fresh = built(run={"micro_batch": 1}), built(run={"micro_batch": 1})
    for part in made.micro_batches(batch):
        made(part, 0, "main")
    made.before_step(0, "main")  # the engine calls this, and no after_step if a gradient is NaN
    assert not made.global_centre.any()
    for each in (made, fresh):
        for part in each.micro_batches(batch):
            each(part, 0, "main")
        each.after_step(0)
    assert torch.equal(made.global_centre, fresh.global_centre)
    assert torch.equal(made.patch_centre, fresh.patch_centre)


def test_koleo_and_the_spread_are_exact_under_autocast() -> None:
    near = torch.randn(1, 64) + 0.02 * torch.randn(6, 64)  # cosines beyond bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        rounded = spread(near)
    torch.testing.assert_close(rounded, spread(near))
    assert rounded["cls_nearest"] > 0.01


def test_the_spread_is_that_of_all_volumes_of_the_step(batch: Volta3dBatch) -> None:
    whole, parts = built(), built(run={"micro_batch": 1})
    expected = whole(batch, 0, "main").monitors["cls_cosine"]
    for part in parts.micro_batches(batch):
        last = parts(part, 0, "main").monitors["cls_cosine"]
    torch.testing.assert_close(last, expected)


def test_distillation_waits_for_its_warmup_with_a_copy_as_teacher(batch: Volta3dBatch) -> None:
    made = built(objective={"distillation_warmup_steps": 3})
    losses = made(batch, 2, "main")
    torch.testing.assert_close(losses.total, 100 * losses.parts["reconstruction"])
    with torch.no_grad():
        for parameter in made.student.parameters():
            parameter += 1
    made.after_step(2)
    assert all(
        torch.equal(one, other)
        for one, other in zip(made.student.parameters(), made.teacher.parameters(), strict=True)
    )
    assert made.momentum(3) > 0.9
    losses = made(batch, 3, "main")
    assert losses.total > 100 * losses.parts["reconstruction"] + 1


def test_the_reconstruction_sees_hidden_voxels_only(batch: Volta3dBatch) -> None:
    made = built()
    hidden = batch.hidden.repeat_interleave(8, 2).repeat_interleave(8, 3).repeat_interleave(8, 4)
    other = batch.student.clone()
    other[~hidden[:, :, None]] += 1
    with torch.no_grad():
        before = made(batch, 0, "main").parts["reconstruction"]
        assert made(batch._replace(student=other), 0, "main").parts["reconstruction"] == before
        other[hidden[:, :, None]] += 1
        after = made(batch._replace(student=other), 0, "main").parts["reconstruction"]
    assert after > before + 0.1


def test_tokens_are_reconstructed_where_they_are() -> None:
    encoder = built().student.encoder.eval()
    x = torch.zeros(1, 1, 16, 24, 32, dtype=torch.float64)
    empty = encoder.as_map(*encoder.last_tokens(x))
    x[..., 8:16, 0:8, 24:32] = 1  # patch (1, 0, 3) of a grid of 2 x 3 x 4
    change = (encoder.as_map(*encoder.last_tokens(x)) - empty).abs().sum(1)[0]
    assert change.shape == (2, 3, 4)
    assert change.argmax() == 1 * 12 + 0 * 4 + 3
    assert torch.equal(encoder.as_map(*encoder.last_tokens(x)), encoder.features(x)[-1])


def test_it_learns_two_volumes_better_than_zero_and_the_mean(batch: Volta3dBatch) -> None:
    made = built(objective={"distillation_warmup_steps": 1000})
    two = Volta3dBatch(*(tensor[:, :2] for tensor in batch))
    losses = trained_on(made, two, 0, 3e-3, 150)
    hidden = two.hidden.repeat_interleave(8, 2).repeat_interleave(8, 3).repeat_interleave(8, 4)
    values = two.student[hidden[:, :, None]].double()
    assert losses.parts["reconstruction"] < 0.5 * values.var()
    assert losses.parts["predict_zero"] == pytest.approx(float((values**2).mean()), rel=1e-3)


def test_collapses_are_reported() -> None:
    made = built()
    uniform = math.log(24)
    healthy = {
        "global_entropy": 0.6 * uniform,
        "patch_entropy": 0.6 * uniform,
        "global_marginal": 0.7 * uniform,
        "patch_marginal": 0.7 * uniform,
        "cls_cosine": 0.3,
        "reconstruction": 0.01,
        "predict_zero": 0.1,
    }
    assert made.collapse_warning(healthy) is None
    for change, message in (
        ({"patch_entropy": 0.999 * uniform}, "patch targets are uniform"),
        ({"global_marginal": 0.0}, "all the same prototype"),
        ({"patch_marginal": 0.6 * uniform}, "patch targets do not distinguish images"),
        ({"cls_cosine": 0.999}, "are the same"),
        ({"reconstruction": 0.1}, "no better than predicting zero"),
    ):
        assert message in (made.collapse_warning({**healthy, **change}) or "")


def test_targets_without_a_weight_are_not_watched() -> None:
    made = built(objective={"global_weight": 0.0, "patch_weight": 0.0})
    alone = {"cls_cosine": 0.3, "reconstruction": 0.01, "predict_zero": 0.1}
    assert made.collapse_warning(alone) is None


def test_a_warm_start_takes_the_summariser_and_resizes_the_positions() -> None:
    source = built()
    encoder = copy.deepcopy(source.teacher.encoder)
    encoder.summariser = copy.deepcopy(source.teacher.summariser)
    target = built(seed=1, views={"global_size": 24})
    target.load_encoder(encoder)
    for networks in (target.student, target.teacher):
        assert torch.equal(networks.summariser.cls_token, encoder.summariser.cls_token)
        positions = networks.encoder.vit.patch_embedding.position_embeddings
        torch.testing.assert_close(positions, encoder.positions((3, 3, 3)).double())
