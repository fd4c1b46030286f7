"""Weights that hide nothing."""

import torch
from torch import nn


def shuffled(module: nn.Module, seed: int) -> nn.Module:
    """Weights of ordinary size, so that nothing is hidden by zeros; statistics of BatchNorm too."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if not name.endswith("position_embeddings"):
                parameter.normal_(0, 0.2)
        for name, buffer in module.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.uniform_(0.5, 1.5)
    return module.eval()
