"""Encoders with weights of ordinary size, in the key formats that people publish."""

from pathlib import Path

import torch
from torch import Tensor, nn

from nnunet_fm.encoders import build_encoder
from nnunet_fm.encoders.families.dinov3_keys import to_dinov3
from nnunet_fm.encoders.loading.identify import identify
from nnunet_fm.encoders.loading.read import read_tensors, unwrap


def randomised(architecture: str, **options: object) -> nn.Module:
    """Weights of ordinary size: an initial LayerScale of 1e-5 would hide any error."""
    torch.manual_seed(3)
    encoder = build_encoder(architecture, **options)
    for name, parameter in encoder.named_parameters():
        if "gamma" in name:
            nn.init.uniform_(parameter, 0.1, 1.0)
        else:
            nn.init.normal_(parameter, std=0.2 if parameter.ndim == 1 else 0.06)
    return encoder.eval().requires_grad_(False)


State = dict[str, Tensor]


def attentive(architecture: str, **options: object) -> dict[str, Tensor]:
    """Return the tensors of `randomised` with queries and keys so large that tokens differ in them.

    With smaller ones all tokens attend to all alike, and an error in their positions hides.
    """
    state = randomised(architecture, **options).state_dict()
    return {k: v * 8 if k.endswith("attn.qkv.weight") else v for k, v in state.items()}


PERIODS = 100.0 ** (torch.arange(4, dtype=torch.float32) / 4)


def official(**options: object) -> State:
    return to_dinov3(randomised("dinov3_test16", **options).state_dict()) | {
        "rope_embed.periods": PERIODS.bfloat16()
    }


def braindino(state: State) -> dict:
    heads = {"dino_head.mlp.0.weight": torch.ones(2), "ibot_head.last_layer.weight": torch.ones(2)}
    return {"teacher": {f"backbone.{k}": v for k, v in state.items()} | heads, "iteration": 3}


def flexict(state: State, volumes_alone: bool = False) -> State:
    """Give our tensors of FlexiCT's class its authors' names; with one kernel, Dinov3d-Neuro's."""
    both = {
        "kernels.2d.": "patch_embed_2D.proj.",
        "kernels.3d.": "patch_embed_3D.proj.",
        "periods_2d": "rope_embed_2D.periods",
        "periods_3d": "rope_embed_3D.periods",
    }
    one = {"kernels.3d.": "patch_embed.proj.", "periods_3d": "rope_embed.periods"}
    names = (one if volumes_alone else both) | {"gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma"}
    renamed = {}
    for key, value in state.items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        renamed[key] = value
    return renamed


def without_values(architecture: str, **options: object) -> State:
    """Return tensors of an architecture's names and shapes that take no space in a file."""
    with torch.device("meta"):
        shapes = build_encoder(architecture, **options).state_dict()
    return {key: torch.zeros(1).expand(value.shape) for key, value in shapes.items()}


def card_of(path: Path) -> tuple[str, str]:
    """Return the card that a file is identified as, and the reason, without building its network.

    Heads of the pretraining are disregarded, as the loader does.
    """
    unwrapped = unwrap(read_tensors(path))
    inside = {k: v for k, v in unwrapped.tensors.items() if "head" not in k}
    assert unwrapped.format is not None
    converted = unwrapped.format.convert(inside)
    card, reason = identify(path, converted, unwrapped.containers, None, unwrapped.format.name)
    return card.name, reason


def amaes_names(state: State) -> State:
    """Give the tensors of AMAES' U-Net their authors' names."""
    renamed = {}
    for key, value in state.items():
        if ".all_modules." in key:
            continue
        _, _, stage, _, _, number, part, name = key.split(".")
        conv = "in_conv" if stage == "0" else f"encoder_conv{stage}"
        renamed[f"{conv}.conv{int(number) + 1}.{part}.{name}"] = value
    return renamed
