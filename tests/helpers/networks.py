"""Small networks."""

from typing import Any

import torch

from helpers.encoder_files import randomised
from nnunet_fm.network import FrozenEncoderNetwork


def small(**arguments: Any) -> FrozenEncoderNetwork:
    """A small network whose encoder has weights of ordinary size."""
    torch.manual_seed(0)
    network = FrozenEncoderNetwork(4, 3, "dinov3_test16", **arguments)
    network.encoder.load_state_dict(randomised("dinov3_test16").state_dict())
    return network
