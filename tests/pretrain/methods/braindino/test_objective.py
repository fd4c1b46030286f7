import pytest
import torch

from helpers import plain_losses as plain
from helpers.pretraining import small_recipe
from nnunet_fm.encoders import build_encoder, random_state
from nnunet_fm.encoders.families.dinov3 import TRAINING_CODE
from nnunet_fm_pretrain.engine.optimiser import (
    clip_gradients,
    layer_scales,
    learning_rate,
    make_optimiser,
)
from nnunet_fm_pretrain.methods.braindino.batches import MultiCropBatch
from nnunet_fm_pretrain.methods.braindino.masked_forward import forward_tokens, rescale_positions
from nnunet_fm_pretrain.methods.braindino.objective import BrainDino
from nnunet_fm_pretrain.methods.recipes import parse_recipe, read_recipe

CALM = {"encoder": {"drop_path": 0.0, "rope_rescale": None}}


def objective(**parts: object) -> BrainDino:
    return BrainDino(parse_recipe(small_recipe(**{**CALM, **parts}), "test"))


def batch(slices: int = 4, local_crops: int = 2) -> MultiCropBatch:
    torch.manual_seed(1)
    masks = torch.zeros(2, slices, 2, 2, dtype=torch.bool)
    masks[0, 1, 0] = masks[1, 2, 1, 1] = masks[1, 0] = True
    return MultiCropBatch(
        torch.randn(2, slices, 1, 32, 32).half(),
        torch.randn(local_crops, slices, 1, 16, 16).half(),
        masks,
    )


@pytest.mark.parametrize("size", [(32, 32), (48, 16)])
def test_nothing_masked_equals_timm(size: tuple[int, int]) -> None:
    encoder = build_encoder("dinov3_test16", **TRAINING_CODE, init_values=0.1).eval()
    torch.nn.init.normal_(encoder.mask_token)
    x = torch.randn(2, 3, *size)
    expected = encoder.vit.forward_features(x)
    for masks in (None, torch.zeros(2, size[0] // 16, size[1] // 16, dtype=torch.bool)):
        tokens = forward_tokens(encoder, x, masks)
        assert torch.equal(tokens.cls, expected[:, 0])
        assert torch.equal(tokens.patches, expected[:, 5:])


def test_the_content_of_masked_patches_is_not_seen() -> None:
    encoder = build_encoder("dinov3_test16", **TRAINING_CODE, init_values=0.1).eval()
    masks = torch.zeros(1, 2, 2, dtype=torch.bool)
    masks[0, 0, 1] = True
    one, other = torch.randn(1, 3, 32, 32), torch.randn(1, 3, 32, 32)
    other[..., :16, :16], other[..., 16:, :] = one[..., :16, :16], one[..., 16:, :]
    assert torch.equal(
        forward_tokens(encoder, one, masks).patches, forward_tokens(encoder, other, masks).patches
    )
    assert not torch.equal(
        forward_tokens(encoder, one).patches, forward_tokens(encoder, other).patches
    )


def test_checkpointing_changes_no_gradient() -> None:
    found = []
    for checkpointing in (False, True):
        made = objective(
            run={"checkpointing": checkpointing}, encoder={"drop_path": 0.5, "rope_rescale": 2.0}
        )
        made.train()
        torch.manual_seed(0)
        made(batch(), 0, "main").total.backward()
        found.append([p.grad for p in made.student.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_positions_are_stretched_in_training_only() -> None:
    encoder = build_encoder("dinov3_test16", **TRAINING_CODE, init_values=0.1)
    x = torch.randn(1, 3, 64, 64)
    plain_tokens = forward_tokens(encoder.eval(), x).patches
    rescale_positions(encoder, 2.0)
    assert torch.equal(forward_tokens(encoder.eval(), x).patches, plain_tokens)
    torch.manual_seed(0)
    first, second = (forward_tokens(encoder.train(), x).patches for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("centring", ["sinkhorn", "mean"])
def test_the_losses_equal_plain_ones_in_float64(centring: str) -> None:
    made = objective(
        objective={
            "centring": centring,
            "teacher_temperature": [0.04, 0.07],
            "teacher_temperature_steps": 10,
        }
    )
    made.double().train()
    with torch.no_grad():  # a teacher unlike the student, and a centre unlike zero
        for p in made.teacher.parameters():
            p += 0.05 * torch.randn_like(p)
        made.dino_centre.normal_()
        made.ibot_centre.normal_()
    for networks in (made.student, made.teacher):
        for (
            block
        ) in networks.encoder.vit.blocks:  # rounded queries and keys would hide what is compared
            block.attn.q_norm = block.attn.k_norm = torch.nn.Identity()
    given, step = batch(), 5
    losses = made(given, step, "main")
    warm, cold = 0.1, 0.055

    def embed(
        networks: torch.nn.Module, crops: torch.Tensor, masks: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x = crops.double().flatten(0, 1).repeat(1, 3, 1, 1)
        tokens = forward_tokens(networks.encoder, x, masks)
        return tokens.cls, tokens.patches

    masks = given.masks.flatten(0, 1)
    seen_cls, seen_patches = embed(made.student, given.global_crops, masks)
    local_cls, _ = embed(made.student, given.local_crops, None)
    taught_cls, taught_patches = embed(made.teacher, given.global_crops, None)

    def logits(networks: torch.nn.Module, head: str, x: torch.Tensor) -> torch.Tensor:
        module = getattr(networks, f"{head}_head")
        y = module.layers(x.flatten(0, -2)).unflatten(0, x.shape[:-1])
        return (y / y.norm(dim=-1, keepdim=True)) @ module.last_layer.T

    def targets(name: str, rows: torch.Tensor) -> torch.Tensor:
        if centring == "sinkhorn":
            return plain.sinkhorn(rows, cold)
        return torch.softmax((rows - getattr(made, f"{name}_centre")) / cold, dim=-1)

    student = [
        *logits(made.student, "dino", seen_cls).chunk(2),
        *logits(made.student, "dino", local_cls).chunk(2),
    ]
    dino = plain.dino(
        student, list(targets("dino", logits(made.teacher, "dino", taught_cls)).chunk(2)), warm
    )
    hidden = masks.flatten(1)
    all_targets = torch.zeros(*hidden.shape, 24, dtype=torch.float64)
    all_targets[hidden] = targets("ibot", logits(made.teacher, "ibot", taught_patches[hidden]))
    ibot = plain.ibot(logits(made.student, "ibot", seen_patches), all_targets, masks, warm)
    koleo = sum(plain.koleo(c) for c in seen_cls.chunk(2))
    assert torch.allclose(losses.parts["dino"], dino, rtol=1e-10)
    assert torch.allclose(losses.parts["ibot"], ibot, rtol=1e-10)
    assert torch.allclose(losses.parts["koleo"], koleo, rtol=1e-6)  # lightly adds 1e-8 to distances
    assert torch.allclose(losses.total, dino + ibot + 0.1 * koleo, rtol=1e-6)


def test_gradients_reach_everything_that_is_owned_and_nothing_else() -> None:
    made = objective()
    made.train()
    made(batch(), 0, "main").total.backward()
    owned = {id(p) for m in made.trainable_modules("main").values() for p in m.parameters()}
    for name, parameter in made.named_parameters():
        has = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert has == (id(parameter) in owned), name
    made.before_step(0, "main")
    assert made.student.dino_head.last_layer.grad is None
    assert not made.teacher.training


def test_batches_without_masks_or_local_crops_are_trained_on() -> None:
    made = objective(views={"local_crops": 0})
    made.train()
    given = batch(local_crops=0)._replace(masks=torch.zeros(2, 4, 2, 2, dtype=torch.bool))
    losses = made(given, 0, "main")
    losses.total.backward()
    assert losses.parts["ibot"] == 0
    assert torch.isfinite(losses.total)


def test_the_teacher_follows_at_the_momentum() -> None:
    made = objective(objective={"momentum": [0.9, 0.9]})
    before = made.teacher.encoder.vit.norm.weight.clone()
    with torch.no_grad():
        made.student.encoder.vit.norm.weight += 1
    made.after_step(0)
    assert torch.allclose(made.teacher.encoder.vit.norm.weight, before + 0.1)


def test_the_mean_centre_moves_after_the_step_only() -> None:
    made = objective(objective={"centring": "mean", "centre_momentum": 0.9})
    made.train()
    with torch.no_grad():
        cls = forward_tokens(
            made.teacher.encoder, batch().global_crops.float().flatten(0, 1).repeat(1, 3, 1, 1)
        ).cls
        mean = (made.teacher.dino_head(cls) @ made.teacher.dino_head.prototypes.T).mean(0)
    made(batch(), 0, "main")
    assert not made.dino_centre.any()
    made.after_step(0)
    assert torch.allclose(made.dino_centre, 0.1 * mean, atol=1e-6)


def test_schedules_and_layers_are_those_of_dinov3() -> None:
    recipe = read_recipe("braindino_stage1").optimiser
    assert learning_rate(5000, recipe) == pytest.approx(5e-5, rel=1e-3)
    assert learning_rate(10_000, recipe) == pytest.approx(1e-4)
    assert learning_rate(499_999, recipe) == pytest.approx(1e-6)
    assert learning_rate(
        10_000, recipe.model_copy(update={"lr_scaling": "sqrt_1024"})
    ) == pytest.approx(4e-4)
    made = objective()
    four = layer_scales(made.student.encoder, recipe)
    assert four.keys() == dict(made.student.encoder.named_parameters()).keys()
    for name, factor in four.items():
        if name.startswith("vit.blocks."):
            expected = 0.9 ** (4 - int(name.split(".")[2]))
        elif name.startswith("vit.norm."):
            expected = 1.0
        else:
            expected = 0.9**5 * (0.2 if "patch_embed" in name else 1)
        assert factor == expected, name
    assert layer_scales(made.student.dino_head, recipe) == {}
    temperatures = [
        objective(objective={"teacher_temperature_steps": 10}).teacher_temperature(s)
        for s in (0, 5, 10, 99)
    ]
    assert temperatures == pytest.approx([0.04, 0.055, 0.07, 0.07])
    groups = make_optimiser(made.trainable_modules("main"), recipe).param_groups
    assert sum(len(g["params"]) for g in groups) == len(list(made.student.parameters()))
    decayed = {id(p) for g in groups if g["weight_decay"] for p in g["params"]}
    for name, p in made.student.named_parameters():
        assert (id(p) in decayed) == (p.ndim > 1), name


def test_each_module_is_clipped_separately() -> None:
    modules = {
        "large": torch.nn.Linear(2, 2, bias=False),
        "small": torch.nn.Linear(2, 2, bias=False),
    }
    modules["large"].weight.grad, modules["small"].weight.grad = (
        torch.full((2, 2), 1e5),
        torch.full((2, 2), 0.1),
    )
    assert clip_gradients(modules, 3.0) == pytest.approx({"large": 2e5, "small": 0.2})
    assert modules["large"].weight.grad.norm() == pytest.approx(3.0)
    assert modules["small"].weight.grad.norm() == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"dino_entropy": 3.17}, "dino targets are uniform"),
        ({"ibot_marginal": 0.001}, "ibot targets are all the same prototype"),
        ({"cls_cosine": 0.9999}, "CLS tokens of different images are the same"),
        ({}, None),
    ],
)
def test_a_collapse_is_reported(change: dict[str, float], sentence: str | None) -> None:
    healthy = {"dino_entropy": 2.0, "ibot_entropy": 2.0, "cls_cosine": 0.3, "cls_nearest": 0.5}
    healthy |= {"dino_marginal": 2.5, "ibot_marginal": 2.5}
    said = objective().collapse_warning(healthy | change)
    assert (sentence is None and said is None) or (sentence or "") in (said or "")


def test_heads_without_masks_are_not_watched() -> None:
    head = {"hidden": 16, "bottleneck": 8, "prototypes": 4}
    made = objective(objective={"masks": {"probability": 0.0}, "ibot_head": head})
    healthy = {"dino_entropy": 2.0, "dino_marginal": 2.5, "cls_cosine": 0.3}
    assert made.collapse_warning({**healthy, "ibot_entropy": 0.0, "ibot_marginal": 0.0}) is None


def test_only_dinov3_is_pretrained() -> None:
    for other in ("dinov2_test14", "dinov3_convnext_test"):
        with pytest.raises(ValueError, match=f"encoder.architecture {other}; allowed: a dinov3_"):
            objective(encoder={"architecture": other})


def test_a_warm_start_takes_encoder_and_teacher() -> None:
    made, other = objective(), build_encoder("dinov3_test16", **TRAINING_CODE)
    other.load_state_dict(random_state("dinov3_test16", 7, **TRAINING_CODE))
    made.load_encoder(other)
    for networks in (made.student, made.teacher):
        for key, value in networks.encoder.state_dict().items():
            assert torch.equal(value, other.state_dict()[key])
