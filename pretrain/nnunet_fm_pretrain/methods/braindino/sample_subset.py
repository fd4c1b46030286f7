"""Stochastic depth of DINOv3: each residual reaches the same number of samples of every batch."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nnunet_fm.encoders.families.dinov3 import Dinov3


class SampleSubset(nn.Module):
    """Keep a residual for int(b (1 - rate)) of the b samples, at least one, and scale it to match.

    Source: dinov3/layers/block.py, whose result this is; there, the residual of the other samples
    is not computed.

    Args:
        rate: share of the samples without the residual.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, residual: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return the residual in evaluation mode, and a subset of it in training mode."""
        if not self.training:
            return residual
        samples = len(residual)
        kept = max(int(samples * (1 - self.rate)), 1)
        dropped = torch.ones(samples, 1, 1, dtype=torch.bool, device=residual.device)
        dropped[torch.randperm(samples, device=residual.device)[:kept]] = False
        return (residual * (samples / kept)).masked_fill(dropped, 0)


def set_constant_drop_path(encoder: Dinov3, rate: float) -> None:
    """Give every block of an encoder the same stochastic depth, as in DINOv3."""
    for block in encoder.vit.blocks:
        block.drop_path1 = SampleSubset(rate)
        block.drop_path2 = SampleSubset(rate)
