"""Set up a network for the device it runs on."""

import torch

from nnunet_fm.internal.device import Precision, keep_freed_memory
from nnunet_fm.network.frozen import FrozenEncoderNetwork


def set_up_for_device(
    network: FrozenEncoderNetwork, device: torch.device, precision: Precision
) -> None:
    """Choose precision, attention kernel and allocator; results are the same up to rounding.

    Args:
        network: on `device` already.
        device: where it runs. Fused attention is used on GPUs only: its backward pass is slow on
            CPUs.
        precision: of the frozen encoder and the autocast region.
    """
    network.use_precision(precision)
    network.use_kernels(fused_attention=device.type != "cpu")
    if device.type == "cpu":
        keep_freed_memory()
