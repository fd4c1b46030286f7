"""Encoders with weights of ordinary size, in the key formats that people publish."""

import torch
from torch import Tensor, nn

from nnunet_fm.encoders import build_encoder
from nnunet_fm.encoders.families.dinov3_keys import to_dinov3


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


PERIODS = 100.0 ** (torch.arange(4, dtype=torch.float32) / 4)


def official(**options: object) -> State:
    return to_dinov3(randomised("dinov3_test16", **options).state_dict()) | {
        "rope_embed.periods": PERIODS.bfloat16()
    }


def braindino(state: State) -> dict:
    heads = {"dino_head.mlp.0.weight": torch.ones(2), "ibot_head.last_layer.weight": torch.ones(2)}
    return {"teacher": {f"backbone.{k}": v for k, v in state.items()} | heads, "iteration": 3}


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
