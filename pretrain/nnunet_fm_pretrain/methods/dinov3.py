"""What methods that train a DINOv3 transformer have in common."""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nnunet_fm.encoders import build_encoder
from nnunet_fm.encoders.families.dinov3 import TRAINING_CODE, Dinov3
from nnunet_fm.encoders.families.dinov3_keys import to_dinov3
from nnunet_fm.internal.errors import InputError
from nnunet_fm_pretrain.engine.objective import Exported

CHANNELS = 3  # of the network; slices of one channel are repeated


def build_dinov3(architecture: str, layer_scale: float, drop_path: float) -> Dinov3:
    """Build a DINOv3 transformer with random weights, in the numerics of the training code.

    Args:
        architecture: of a transformer, a `dinov3_*` name of `nnunet-fm encoders list`.
        layer_scale: initial LayerScale.
        drop_path: stochastic depth of the last block.

    Raises:
        ValueError: another architecture.
    """
    if not architecture.startswith("dinov3_") or architecture.startswith("dinov3_convnext_"):
        raise InputError(
            f"encoder.architecture {architecture}; allowed: a dinov3_* transformer of "
            "`encoders list`"
        )
    options: dict[str, Any] = {
        **TRAINING_CODE,
        "init_values": layer_scale,
        "drop_path_rate": drop_path,
    }
    encoder = cast(Dinov3, build_encoder(architecture, **options))
    nn.init.trunc_normal_(encoder.mask_token, std=0.02)
    encoder.set_fused_attention(torch.cuda.is_available())  # its backward pass is slow on CPUs
    return encoder


@torch.no_grad()
def initialise_as_dinov3(encoder: Dinov3) -> None:
    """Draw the weights as DINOv3's `init_weights` does (dinov3/models/vision_transformer.py).

    timm differs in two ways: it divides the last linear weights of the attention and of the MLP of
    block i by sqrt(2 (i + 1)), and `build_dinov3` draws the mask token at random. The patch
    embedding, the norms and LayerScale are the same.
    """
    for module in encoder.vit.blocks.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.normal_(encoder.vit.cls_token, std=0.02)
    nn.init.normal_(encoder.vit.reg_token, std=0.02)
    nn.init.zeros_(encoder.mask_token)


def export_dinov3(encoder: Dinov3, architecture: str) -> Exported:
    """Return an encoder in the names of the DINOv3 training code, with the card of such files."""
    tensors = to_dinov3(encoder.state_dict())
    return Exported(tensors, architecture, f"{architecture}.trained", TRAINING_CODE)


def three_channels(crops: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 h w"]:
    """Repeat one channel to three on the device, without a copy."""
    return crops.expand(-1, CHANNELS, -1, -1)
