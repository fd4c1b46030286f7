"""Transposed convolutions computed on tokens.

A transposed convolution whose kernel equals its stride of 2 is a linear layer per token with four
outputs, one for each child pixel. The children need not be in image order between the stages: they
stay behind their parent, and one rearrangement of the class logits at the end gives the image.
Nothing is copied in between.
"""

import torch
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class UpStage(nn.Module):
    """`ConvTranspose2d(kernel 2, stride 2)`, channel LayerNorm and GELU, on tokens.

    Args:
        width_in: channels of each token.
        width_out: channels of each of its four children.

    The weight is that of the transposed convolution, `(in, out, 2, 2)`, stored as `(2 * 2 * out,
    in)`: see `weight_from_convolution`.
    """

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        convolution = nn.ConvTranspose2d(width_in, width_out, 2, 2)
        InitWeights_He(1e-2)(convolution)
        self.weight = nn.Parameter(weight_from_convolution(convolution.weight.detach()))
        self.bias = nn.Parameter(torch.zeros(width_out))
        # The epsilon is that of dynamic-network-architectures' LayerNormNd.
        self.norm = nn.LayerNorm(width_out, eps=1e-6)

    def forward(self, tokens: Float[Tensor, "b n i"]) -> Float[Tensor, "b m o"]:
        """Return the four children of every token, grouped by parent."""
        children = functional.linear(tokens, self.weight, self.bias.repeat(4))
        children = children.unflatten(2, (4, -1)).flatten(1, 2)
        return functional.gelu(self.norm(children).to(children.dtype))


def weight_from_convolution(weight: Float[Tensor, "i o 2 2"]) -> Float[Tensor, "m i"]:
    """Convert the weight of a transposed convolution to the layout of `UpStage`."""
    return weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous()


def to_tokens(features: list[Float[Tensor, "b d th tw"]]) -> Float[Tensor, "b n k"]:
    """Concatenate feature maps of one grid along the channels, as tokens."""
    return torch.cat([f.flatten(2).transpose(1, 2) for f in features], dim=2)


def to_image(
    children: Float[Tensor, "b n k"], grid: tuple[int, int], stages: int
) -> Float[Tensor, "b k h w"]:
    """Put the children of `stages` doublings of `grid` into the image's order."""
    b, _, k = children.shape
    split = children.reshape(b, *grid, *([2, 2] * stages), k)
    rows = [1, *range(3, 3 + 2 * stages, 2)]
    columns = [2, *range(4, 4 + 2 * stages, 2)]
    height, width = (side * 2**stages for side in grid)
    return split.permute(0, split.dim() - 1, *rows, *columns).reshape(b, k, height, width)
