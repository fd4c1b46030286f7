"""The networks of VolTA-3D: transformer, summariser and head; and the student's decoder."""

from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nnunet_fm.encoders import build_encoder
from nnunet_fm.encoders.families.volta3d import Summariser, Volta3d
from nnunet_fm_pretrain.engine.objective import Exported
from nnunet_fm_pretrain.methods.distillation_recipe import HeadRecipe
from nnunet_fm_pretrain.methods.projection_head import PrototypeHead
from nnunet_fm_pretrain.methods.self_distillation import Projected
from nnunet_fm_pretrain.methods.volta3d.recipe import Volta3dRecipe

POSITIONS = "vit.patch_embedding.position_embeddings"
CHANNELS = 16  # between the two convolutions, as in MONAI's ViTAutoEnc


class VolumeTokens(NamedTuple):
    """Tokens after the final norm, in the weights' order, and their grid."""

    patches: Float[Tensor, "b n d"]
    grid: tuple[int, ...]


class TokenHead(PrototypeHead):
    """A head whose layers are shared by summaries and patches, with prototypes for each.

    Args:
        width: of the tokens.
        recipe: sizes.
    """

    def __init__(self, width: int, recipe: HeadRecipe) -> None:
        super().__init__(width, recipe)
        self.patch_last_layer = nn.Parameter(torch.empty_like(self.last_layer))
        nn.init.trunc_normal_(self.patch_last_layer, std=0.02)

    def project(self, tokens: Float[Tensor, "v n d"], name: str) -> Projected:
        """Return the bottleneck vectors of tokens, and the prototypes of the loss `name`."""
        layer = self.last_layer if name == "global" else self.patch_last_layer
        return Projected(self(tokens), self.as_prototypes(layer))


class Reconstruction(nn.Sequential):
    """Two transposed convolutions from the tokens to the voxels (MONAI's ViTAutoEnc).

    MONAI's patches have a square edge; other powers of two are divided as evenly as they can be.

    Args:
        width: of the tokens.
        patch: edge of a patch in voxels.
    """

    def __init__(self, width: int, patch: int) -> None:
        first = 2 ** ((patch.bit_length()) // 2)
        second = patch // first
        super().__init__(
            nn.ConvTranspose3d(width, CHANNELS, first, first),
            nn.ConvTranspose3d(CHANNELS, 1, second, second),
        )


class VolumeNetworks(nn.Module):
    """Encoder, summariser and head of student or teacher.

    Args:
        recipe: of the run.
    """

    def __init__(self, recipe: Volta3dRecipe) -> None:
        super().__init__()
        size = recipe.views.global_size
        built = build_encoder(recipe.encoder.architecture, image_size=size)
        self.encoder = cast(Volta3d, built)
        self.encoder.set_fused_attention(torch.cuda.is_available())  # slow backward pass on CPUs
        self.summariser = Summariser(self.encoder.width)
        self.head = TokenHead(self.encoder.width, recipe.objective.head)

    def tokens(self, crops: Float[Tensor, "b 1 z y x"]) -> VolumeTokens:
        """Compute the tokens of the patches."""
        return VolumeTokens(*self.encoder.last_tokens(crops))

    def summaries(self, tokens: VolumeTokens, views: int) -> Float[Tensor, "v b d"]:
        """Return the summaries of the crops of `views` views."""
        summaries: Tensor = self.summariser(tokens.patches)
        return summaries.unflatten(0, (views, -1))

    def start_from(self, encoder: Volta3d) -> None:
        """Take the weights of an encoder; its positions are resized to the recipe's crops."""
        weights = {k: v for k, v in encoder.state_dict().items() if k.startswith("vit.")}
        weights[POSITIONS] = encoder.positions((self.encoder.side,) * 3)
        self.encoder.load_state_dict(weights)
        if encoder.summariser is not None:
            self.summariser.load_state_dict(encoder.summariser.state_dict())

    def export(self, recipe: Volta3dRecipe, voxel_mm: float) -> Exported:
        """Return the encoder with its summariser.

        Args:
            recipe: of the run.
            voxel_mm: edge of a voxel of its global crops; 0 if unknown.
        """
        tensors = dict(self.encoder.state_dict())
        tensors |= {f"summariser.{k}": v for k, v in self.summariser.state_dict().items()}
        architecture = recipe.encoder.architecture
        spacing = [round(voxel_mm, 2)] * 3 if voxel_mm else None
        options = {
            "summariser": True,
            "image_size": recipe.views.global_size,
            "spacing": spacing,
        }
        return Exported(tensors, architecture, f"{architecture}.trained", options)
