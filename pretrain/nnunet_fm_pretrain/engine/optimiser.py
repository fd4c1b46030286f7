"""AdamW with layer-wise learning rates, its schedule, and gradient clipping per module."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightly.utils.scheduler import cosine_warmup_schedule
from torch import nn

from nnunet_fm.encoders import Encoder
from nnunet_fm.internal.errors import InputError
from nnunet_fm_pretrain.engine.recipe import OptimiserRecipe

SCALE = "lr_scale"
TOKENS = ("cls_token", "reg_token", "mask_token")


def make_optimiser(modules: Mapping[str, nn.Module], recipe: OptimiserRecipe) -> torch.optim.AdamW:
    """Make AdamW over modules, with one group for each pair of rate factor and weight decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module in modules.values():
        scales = layer_scales(module, recipe)
        for name, parameter in module.named_parameters():
            decay = recipe.weight_decay if has_decay(name, parameter, recipe) else 0.0
            scale = scales.get(name, 1.0)
            groups.setdefault((scale, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, SCALE: scale, "weight_decay": decay}
            for (scale, decay), parameters in groups.items()
        ],
        lr=recipe.peak_lr,
        betas=recipe.betas,
        fused=True,
    )


def layer_scales(module: nn.Module, recipe: OptimiserRecipe) -> dict[str, float]:
    """Return the learning rate factors of an encoder's parameters by name, as in DINOv3.

    The final norm has factor 1, each block below it has `layer_decay` times the factor of the block
    above, and so have the embeddings below all blocks; the patch embedding has a further factor.
    Modules that are not encoders, or have no layers to tell apart, give an empty dict.
    """
    groups = module.layer_groups() if isinstance(module, Encoder) else []
    if len(groups) < 2:
        return {}
    exponents = {id(p): len(groups) - 1 - i for i, group in enumerate(groups) for p in group}
    scales = {}
    for name, parameter in module.named_parameters():
        scale = recipe.layer_decay ** exponents[id(parameter)]
        scales[name] = scale * recipe.patch_embed_lr if "patch_embed" in name else scale
    return scales


def check_factors(modules: Mapping[str, nn.Module], settings: Mapping[str, Any], key: str) -> None:
    """Check that the factors on learning rates have an effect on some module.

    Args:
        modules: that are trained, by name.
        settings: of the optimiser; factors that are not among them are not checked.
        key: of the settings in messages, `optimiser` or `optimisers.PHASE`.

    Raises:
        InputError: a factor other than 1 that no module uses.
    """
    encoders = [module for module in modules.values() if isinstance(module, Encoder)]
    layered = [encoder for encoder in encoders if len(encoder.layer_groups()) > 1]
    embedded = [e for e in layered if any("patch_embed" in n for n, _ in e.named_parameters())]
    for name, used_by in (("layer_decay", layered), ("patch_embed_lr", embedded)):
        value = settings.get(name, 1)
        if value != 1 and not used_by:
            raise InputError(
                f"{key}.{name}={value:g} has no effect on {', '.join(modules)}; allowed: "
                f"{key}.{name}=1"
            )


def has_decay(name: str, parameter: nn.Parameter, recipe: OptimiserRecipe) -> bool:
    """Whether a parameter has weight decay: not biases, norms, LayerScale; tokens if asked for."""
    if name.endswith(TOKENS):
        return recipe.token_decay
    return parameter.ndim > 1


def learning_rate(step: int, recipe: OptimiserRecipe) -> float:
    """Return the learning rate of a step: linear warm-up from 0, then half a cosine (lightly's)."""
    factor = 4 * math.sqrt(recipe.batch_size / 1024) if recipe.lr_scaling == "sqrt_1024" else 1.0
    return factor * cosine_warmup_schedule(
        step,
        recipe.steps,
        start_value=recipe.peak_lr,
        end_value=recipe.final_lr,
        warmup_steps=recipe.warmup_steps,
        warmup_start_value=0.0,
    )


def set_learning_rate(optimiser: torch.optim.Optimizer, value: float) -> None:
    """Set the learning rate of every group to `value` times its factor."""
    for group in optimiser.param_groups:
        group["lr"] = value * group[SCALE]


def clip_gradients(modules: Mapping[str, nn.Module], largest: float | None) -> dict[str, float]:
    """Clip the gradient norm of each module separately; return the norms before clipping.

    At the first step KoLeo's gradient is ten thousand times the others': clipped together, they
    would vanish.

    Args:
        modules: by name.
        largest: gradient norm that is kept; None: no clipping.
    """
    limit = math.inf if largest is None else largest
    norms: dict[str, Any] = {
        name: nn.utils.clip_grad_norm_(module.parameters(), limit)
        for name, module in modules.items()
    }
    return {name: float(norm) for name, norm in norms.items()}
