"""Learning rates by layer: what has no effect on an encoder is refused."""

import pytest
from torch import nn

from nnunet_fm.encoders import build_encoder
from nnunet_fm_pretrain.engine.optimiser import check_factors, layer_scales
from nnunet_fm_pretrain.engine.recipe import OptimiserRecipe

LENGTH = {"steps": 10, "batch_size": 2, "warmup_steps": 0}


@pytest.mark.parametrize(("factor", "value"), [("layer_decay", 0.9), ("patch_embed_lr", 0.2)])
def test_factors_without_effect_are_refused(factor: str, value: float) -> None:
    modules = {"encoder": build_encoder("prism_test12"), "head": nn.Linear(2, 2)}
    settings = {"clip": 3.0, factor: value}
    with pytest.raises(ValueError, match=rf"^optimisers.x.{factor}={value} has no .* encoder, he"):
        check_factors(modules, settings, "optimisers.x")
    check_factors(modules, {factor: 1.0}, "optimiser")
    check_factors(modules, {}, "optimiser")
    check_factors({"encoder": build_encoder("dinov3_test16")}, settings, "optimiser")


def test_factors_of_a_transformer() -> None:
    recipe = OptimiserRecipe.model_validate({**LENGTH, "layer_decay": 0.5, "patch_embed_lr": 0.2})
    encoder = build_encoder("dinov3_test16")
    scales = layer_scales(encoder, recipe)
    assert scales["vit.norm.weight"] == 1
    assert scales["vit.blocks.3.norm1.weight"] == 0.5
    assert scales["vit.patch_embed.proj.weight"] == pytest.approx(0.2 * 0.5**5)
