"""Orders of the spatial axes of volumes."""

from jaxtyping import Float
from torch import Tensor


def reverse_axes(x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c k j i"]:
    """Reverse the spatial axes: (z, y, x) to (x, y, z), and back."""
    return x.permute(0, 1, 4, 3, 2)
