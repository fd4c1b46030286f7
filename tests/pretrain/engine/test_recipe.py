from pathlib import Path

import pytest
import torch
import yaml

from helpers.pretraining import small_recipe
from nnunet_fm_pretrain.engine.recipe import recipe_differences
from nnunet_fm_pretrain.methods.braindino.recipe import BrainDinoRecipe
from nnunet_fm_pretrain.methods.recipes import (
    parse_recipe,
    read_recipe,
    shipped_recipes,
)
from nnunet_fm_pretrain.methods.registry import get_method


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_is_valid_and_says_how_to_run_it(name: str) -> None:
    recipe = read_recipe(name)
    head = shipped_recipes()[name].read_text().split("seed:")[0]
    for word in ("hardware", "hours", "result", f"run {name} "):
        assert word in head
    if isinstance(recipe, BrainDinoRecipe):
        assert recipe.stage == (2 if name == "braindino_stage2" else 1)
    assert shipped_recipes()[name].parent.name == recipe.objective.method


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_is_built(name: str) -> None:
    """Without memory for the weights: the paper's heads alone have 270 million."""
    recipe = read_recipe(name)
    with torch.device("meta"):
        objective = get_method(recipe.objective.method).build(recipe)
    for phase in objective.all_phases:
        modules = objective.trainable_modules(phase).values()
        owned = {id(p) for module in modules for p in module.parameters()}
        assert owned <= {id(p) for p in objective.parameters()}
        assert any(p.requires_grad for module in modules for p in module.parameters())
    assert {id(block) for block in objective.blocks_to_compile()} <= {
        id(module) for module in objective.modules()
    }
    exported = objective.export_encoder()
    method = recipe.objective.method
    kind = method if method in ("brainfm", "brainfound", "prism", "volta3d") else "dinov3"
    _, _, size = recipe.encoder.architecture.partition("_")
    assert exported.architecture == f"{kind}_{size}"


def test_the_paper_s_numbers() -> None:
    recipe = read_recipe("braindino_stage1")
    objective, optimiser = recipe.objective, recipe.optimiser
    assert (optimiser.steps, optimiser.batch_size, optimiser.warmup_steps) == (
        500_000,
        1024,
        10_000,
    )
    assert (optimiser.peak_lr, optimiser.weight_decay, optimiser.layer_decay, optimiser.clip) == (
        1e-4,
        0.04,
        0.9,
        3.0,
    )
    assert (
        objective.dino_head.hidden,
        objective.dino_head.bottleneck,
        objective.dino_head.prototypes,
    ) == (
        2048,
        256,
        65536,
    )
    assert objective.momentum == (0.994, 0.994)
    assert (objective.koleo_weight, objective.ibot_weight) == (0.1, 1.0)
    second = read_recipe("braindino_stage2")
    assert second.optimiser.batch_size == 4 * 56
    assert [(p.global_size, p.local_size, p.probability) for p in second.views.pairs] == [
        (512, 112, 0.30),
        (768, 112, 0.30),
        (768, 168, 0.30),
        (768, 224, 0.05),
        (768, 336, 0.05),
    ]


def test_single_keys_are_overridden() -> None:
    recipe = read_recipe(
        "braindino_tiny_cpu",
        ["optimiser.steps=2000", "objective.momentum=[0.9, 1.0]", "run.compile=true"],
    )
    assert (recipe.optimiser.steps, recipe.objective.momentum, recipe.run.compile) == (
        2000,
        (0.9, 1.0),
        True,
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.step=5", "unknown key 'optimiser.step'. Did you mean optimiser.steps"),
        ("objective.dino_head.prototype=5", "Did you mean objective.dino_head.prototypes"),
        ("views.pairs=[{global: 5}]", "Did you mean views.pairs.0.global_size"),
        ("optimizer.steps=5", "Did you mean optimiser"),
        ("optimiser.steps=many", "optimiser.steps: .*valid integer.*'many'"),
        ("optimiser.peak_lr=.nan", "optimiser.peak_lr: .*finite"),
        ("optimiser.warmup_steps=999999", "warmup_steps is 999999; allowed: at most steps"),
        (
            "views.pairs=[{global_size: 64, local_size: 32, probability: 0.5}]",
            "sum to 0.5; allowed: 1",
        ),
        ("views.global_scale=[0.5, 0.1]", r"global_scale is \(0.5, 0.1\)"),
        ("views.blur.kernel=8", "kernel is 8; allowed: odd"),
        ("objective.masks.ratio=[0.5, 0.1]", "ratio is"),
        ("objective.teacher_temperature=[0, 0]", "greater than 0"),
        ("stage=3", "stage 3; allowed: 1 or 2"),
        ("seed", "is not KEY=VALUE"),
        ("seed.a=1", "seed holds no keys"),
    ],
)
def test_wrong_recipes_are_refused_with_the_reason(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_recipe("braindino_tiny_cpu", [override])


def test_files_are_checked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Did you mean .*braindino_stage1"):
        read_recipe("braindino_stage")
    broken = tmp_path / "r.yaml"
    broken.write_text("stage: [1")
    with pytest.raises(ValueError, match="is not YAML"):
        read_recipe(broken)
    broken.write_text("- 1")
    with pytest.raises(ValueError, match="holds a list; allowed: a recipe"):
        read_recipe(broken)
    broken.write_text(yaml.safe_dump(small_recipe()))
    assert read_recipe(broken).optimiser.steps == 20


def test_recipes_and_checkpoints_of_version_0_1_are_read() -> None:
    content = small_recipe(run={"most_bad_steps": 7})
    assert "method" not in content["objective"]  # type: ignore[operator]
    recipe = parse_recipe(content, "test")
    assert isinstance(recipe, BrainDinoRecipe)
    assert recipe.run.max_skipped_steps == 7
    again = parse_recipe(recipe.model_dump(mode="json"), "test")
    assert again == recipe


def test_differences_ignore_keys_that_change_no_result() -> None:
    one = parse_recipe(small_recipe(), "test")
    assert recipe_differences(one, parse_recipe(small_recipe(run={"workers": 3}), "test")) == []
    assert recipe_differences(
        one, parse_recipe(small_recipe(optimiser={"peak_lr": 0.5}), "test")
    ) == ["optimiser.peak_lr: 0.001 and 0.5"]
