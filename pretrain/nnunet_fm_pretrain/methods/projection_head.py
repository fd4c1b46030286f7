"""Projection heads with prototypes."""

import torch
from jaxtyping import Float
from lightly.models.modules.heads import ProjectionHead
from torch import Tensor, nn
from torch.nn.functional import normalize

from nnunet_fm_pretrain.methods.distillation_recipe import HeadRecipe


class PrototypeHead(nn.Module):
    """Three layers with GELU, a normalised bottleneck and prototypes (DINOv3; lightly's layers).

    The prototypes are kept apart from the layers, so that the loss can take them a few rows at a
    time.

    Args:
        width: of the encoder's tokens.
        recipe: sizes; `normalised` gives every prototype length 1.
    """

    def __init__(self, width: int, recipe: HeadRecipe) -> None:
        super().__init__()
        hidden, bottleneck = recipe.hidden, recipe.bottleneck
        self.layers = ProjectionHead(
            [
                (width, hidden, None, nn.GELU()),
                (hidden, hidden, None, nn.GELU()),
                (hidden, bottleneck, None, None),
            ]
        )
        self.last_layer = nn.Parameter(torch.empty(recipe.prototypes, bottleneck))
        self.normalised = recipe.normalised
        for module in self.layers.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.last_layer, std=0.02)

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows bottleneck"]:
        """Bottleneck vectors of length 1."""
        y = self.layers(x)
        return normalize(y.to(torch.promote_types(y.dtype, torch.float32)), dim=-1)

    @property
    def prototypes(self) -> Float[Tensor, "k bottleneck"]:
        """The prototypes."""
        return self.as_prototypes(self.last_layer)

    def as_prototypes(self, layer: Float[Tensor, "k bottleneck"]) -> Float[Tensor, "k bottleneck"]:
        """Return a last layer as prototypes: of length 1, if the head is normalised."""
        return normalize(layer, dim=-1) if self.normalised else layer
