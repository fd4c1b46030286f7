"""An encoder whose last blocks are trained, with a linear head."""

from copy import deepcopy

from jaxtyping import Float
from torch import Tensor, nn

from nnunet_fm.encoders import Encoder
from nnunet_fm.internal.errors import InputError


class FineTunedNetwork(nn.Module):
    """LayerNorm and Linear on the vector of an encoder of volumes.

    The encoder stays in evaluation mode: statistics of batch normalisation and dropout are those
    of the pretraining.

    Args:
        encoder: of volumes; it is copied, with its device.
        unfreeze: see `FineTuning`.
        width: length of the encoder's vector.
        outputs: number of classes, or 1.

    Raises:
        InputError: more blocks than the encoder has.
    """

    def __init__(self, encoder: Encoder, unfreeze: int | str, width: int, outputs: int) -> None:
        super().__init__()
        self.encoder = deepcopy(encoder).eval().requires_grad_(False)
        for parameter in unfrozen_parameters(self.encoder, unfreeze):
            parameter.requires_grad_(True)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))

    def embed(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d"]:
        """Return the encoder's vectors of volumes."""
        return vectors_of(self.encoder, x)

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the parameters that are trained, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}


def vectors_of(encoder: Encoder, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d"]:
    """Return an encoder's vectors of volumes, of which every channel gets the same, or visits."""
    return encoder.embed(x.expand(-1, encoder.in_channels, -1, -1, -1))


def unfrozen_parameters(encoder: Encoder, unfreeze: int | str) -> list[nn.Parameter]:
    """Return the parameters of the last blocks, and of what comes after the blocks.

    Raises:
        InputError: more blocks than there are, or some of an encoder without blocks.
    """
    if unfreeze == 0:
        return []
    groups = encoder.layer_groups()  # embeddings, each block, final norm
    if unfreeze != "all":
        count = int(unfreeze)
        blocks = len(groups) - 2
        if blocks < 1:
            raise InputError(
                f"finetune.unfreeze={count}: this encoder has no blocks to tell apart; allowed: 0, "
                "all"
            )
        if count > blocks:
            raise InputError(f"finetune.unfreeze={count}; allowed: 0 to {blocks}, or all")
        groups = groups[-count - 1 :]
    return [parameter for group in groups for parameter in group]
