"""What methods that train a DINOv3 transformer have in common."""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nnunet_fm.encoders import build_encoder
from nnunet_fm.encoders.families.dinov3 import TRAINING_CODE, Dinov3, to_dinov3
from nnunet_fm.internal.errors import InputError
from nnunet_fm_pretrain.engine.objective import Exported

CHANNELS = 3  # of the network; slices of one channel are repeated


def build_dinov3(architecture: str, layer_scale: float, drop_path: float) -> Dinov3:
    """Build a DINOv3 transformer with random weights, in the numerics of the training code.

    Args:
        architecture: a `dinov3_*` name of `nnunet-fm encoders list`.
        layer_scale: initial LayerScale.
        drop_path: stochastic depth of the last block.

    Raises:
        ValueError: another architecture.
    """
    if not architecture.startswith("dinov3_"):
        raise InputError(
            f"encoder.architecture {architecture}; allowed: a dinov3_* name of `encoders list`"
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


def export_dinov3(encoder: Dinov3, architecture: str) -> Exported:
    """Return an encoder in the names of the DINOv3 training code, with the card of such files."""
    tensors = to_dinov3(encoder.state_dict())
    return Exported(tensors, architecture, f"{architecture}.trained", TRAINING_CODE)


def three_channels(crops: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 h w"]:
    """Repeat one channel to three on the device, without a copy."""
    return crops.expand(-1, CHANNELS, -1, -1)
