"""AdamW with layer-wise learning rates, its schedule, and clipping of each module by itself."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from lightly.utils.scheduler import cosine_warmup_schedule
from torch import nn

from nnunet_fm.encoders.families.timm_vit import TimmViT
from nnunet_fm_pretrain.engine.recipe import OptimiserRecipe

SCALE = "lr_scale"


def make_optimiser(modules: Mapping[str, nn.Module], recipe: OptimiserRecipe) -> torch.optim.AdamW:
    """AdamW over modules: one group for each pair of learning rate factor and weight decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module in modules.values():
        depth = module.depth if isinstance(module, TimmViT) else 0
        for name, parameter in module.named_parameters():
            scale = layer_scale(name, depth, recipe) if depth else 1.0
            decay = 0.0 if undecayed(name, parameter) else recipe.weight_decay
            groups.setdefault((scale, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": p, SCALE: scale, "weight_decay": decay}
            for (scale, decay), p in groups.items()
        ],
        lr=recipe.peak_lr,
        betas=recipe.betas,
        fused=True,
    )


def layer_scale(name: str, depth: int, recipe: OptimiserRecipe) -> float:
    """Learning rate factor of an encoder's parameter, as in DINOv3: 0.9 for the last block, 0.9^(depth + 1) below all.

    The final norm has 1; the patch embedding has its own factor besides.
    """
    block = re.match(r"vit\.blocks\.(\d+)\.", name)
    if block:
        return recipe.layer_decay ** (depth - int(block.group(1)))
    if name.startswith("vit.norm."):
        return 1.0
    below = recipe.layer_decay ** (depth + 1)
    return below * recipe.patch_embed_lr if "patch_embed" in name else below


def undecayed(name: str, parameter: nn.Parameter) -> bool:
    """Biases, norms and LayerScale have no weight decay; nor have the tokens that stand before the patches."""
    return parameter.ndim < 2 or name.endswith(("cls_token", "reg_token", "mask_token"))


def learning_rate(step: int, recipe: OptimiserRecipe) -> float:
    """Linear warm-up from 0, then half a cosine (lightly's)."""
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
    """Set every group to `value` times its factor."""
    for group in optimiser.param_groups:
        group["lr"] = value * group[SCALE]


def clip_gradients(modules: Mapping[str, nn.Module], most: float | None) -> dict[str, float]:
    """Clip each module's gradient norm by itself; gives the norms before.

    At the first step KoLeo's gradient is ten thousand times the others': clipped together, they
    would vanish.
    """
    norms: dict[str, Any] = {
        name: nn.utils.clip_grad_norm_(module.parameters(), math.inf if most is None else most)
        for name, module in modules.items()
    }
    return {name: float(norm) for name, norm in norms.items()}
