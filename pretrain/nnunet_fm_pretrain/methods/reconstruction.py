"""What methods that reconstruct have in common."""

from collections.abc import Mapping

import torch.distributed as dist
from jaxtyping import Bool, Float
from lightly.utils.dist import world_size
from torch import Tensor

SMALLEST = 1e-6  # of a squared error
USELESS = 0.99  # of the loss of predicting zero


def nothing_reconstructed(monitors: Mapping[str, float]) -> str | None:
    """Return a sentence if the loss `reconstruction` is no better than `predict_zero`."""
    share = monitors["reconstruction"] / max(monitors["predict_zero"], SMALLEST)
    if share > USELESS:
        return f"the reconstruction is no better than predicting zero ({share:.1%} of its loss)"
    return None


def mean_over(
    values: Float[Tensor, "*places"], counted: Bool[Tensor, "*places"]
) -> Float[Tensor, ""]:
    """Average values over the places that count, of all ranks.

    DistributedDataParallel averages gradients over ranks, so each rank returns its sum divided by
    the mean number of places per rank.
    """
    number = counted.sum().to(values.dtype)
    if world_size() > 1:
        dist.all_reduce(number)
    return (values * counted).sum() * world_size() / number.clamp(min=1)
