"""Variance and covariance of the encoder's tokens (paper, equations 2 and 3), over all ranks."""

import torch
from jaxtyping import Float
from lightly.utils.dist import world_size
from torch import Tensor
from torch.distributed.nn.functional import all_reduce

EPSILON = 1e-4  # inside the root: outside, the gradient of a constant feature is not a number


def variance_and_covariance(
    tokens: Float[Tensor, "n d"],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the two terms that keep features apart.

    The variance term is the mean of max(0, 1 - deviation) over the features; the covariance term
    the sum of the squared covariances of different features, divided by their number d. Covariances
    divide by n - 1, n being the tokens of all ranks.

    Args:
        tokens: of this rank; the ranks may have different numbers.

    Example:
        >>> from math import isclose
        >>> variance, covariance = variance_and_covariance(torch.zeros(4, 3))
        >>> isclose(variance, 1 - EPSILON**0.5, rel_tol=1e-6), covariance.item()
        (True, 0.0)
    """
    number = tokens.new_tensor(float(len(tokens)))
    with torch.autocast(tokens.device.type, enabled=False):  # a product of bfloat16 is too coarse
        total, products = tokens.sum(0), tokens.T @ tokens
    if world_size() > 1:
        number, total, products = (all_reduce(part) for part in (number, total, products))
    mean = total / number
    covariances = (products - number * torch.outer(mean, mean)) / (number - 1).clamp(min=1)
    variances = covariances.diagonal()
    deviations = (variances.clamp(min=0) + EPSILON).sqrt()
    width = tokens.shape[1]
    variance = torch.relu(1 - deviations).mean()
    covariance = (covariances.square().sum() - variances.square().sum()) / width
    return variance, covariance
