"""Student and teacher of BrainFound: a DINOv2 transformer on slabs, its mask token and heads."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from nnunet_fm.encoders import Encoder, build_encoder
from nnunet_fm.encoders.families.brainfound import BrainFound as BrainFoundEncoder
from nnunet_fm.encoders.families.dinov2 import Dinov2
from nnunet_fm.encoders.families.dinov2_keys import to_dinov2
from nnunet_fm.internal.errors import InputError
from nnunet_fm_pretrain.engine.objective import Exported
from nnunet_fm_pretrain.methods.braindino.masked_forward import Tokens
from nnunet_fm_pretrain.methods.brainfound.recipe import BrainFoundRecipe, SlabRecipe
from nnunet_fm_pretrain.methods.projection_head import PrototypeHead

RGB = 3


class SlabNetworks(nn.Module):
    """Encoder, mask token and heads.

    Args:
        recipe: of the run.
        drop_path: stochastic depth of the last block.

    Raises:
        ValueError: an image size that is not a multiple of the patch.
    """

    def __init__(self, recipe: BrainFoundRecipe, drop_path: float) -> None:
        super().__init__()
        encoder = recipe.encoder
        self.encoder = cast(
            Dinov2,
            build_encoder(
                f"dinov2_{encoder.size}",
                positions="offset",
                in_chans=recipe.slabs.channels,
                image_size=encoder.image_size,
                init_values=encoder.layer_scale,
                drop_path_rate=drop_path,
            ),
        )
        patch = self.encoder.input_spec.divisor
        if encoder.image_size % patch:
            raise InputError(
                f"encoder.image_size {encoder.image_size} for patches of {patch} px; allowed: a "
                "multiple"
            )
        self.encoder.set_fused_attention(torch.cuda.is_available())  # slow backward pass on CPUs
        # in the encoder, as the mask token of DINOv3: it learns at the rate of the embeddings
        self.encoder.mask_token = nn.Parameter(torch.zeros(1, self.encoder.width))
        self.dino_head = PrototypeHead(self.encoder.width, recipe.objective.dino_head)
        self.ibot_head = PrototypeHead(self.encoder.width, recipe.objective.ibot_head)

    def tokens(
        self, crops: Float[Tensor, "n c h w"], masks: Bool[Tensor, "n th tw"] | None = None
    ) -> Tokens:
        """Compute the tokens after the final norm; equal to timm's where nothing is masked.

        Args:
            crops: slabs; sides are multiples of the patch.
            masks: True where the patch is hidden.
        """
        vit = self.encoder.vit
        x = vit.patch_embed(crops)
        if masks is not None:
            token = cast(Tensor, self.encoder.mask_token)
            x = torch.where(masks[..., None], token.to(x.dtype), x)
        x = vit.norm_pre(vit._pos_embed(x))
        for block in vit.blocks:
            x = self.encoder.run_block(block, x)
        x = vit.norm(x)
        return Tokens(x[:, 0], x[:, vit.num_prefix_tokens :])

    def export(self, recipe: BrainFoundRecipe) -> Exported:
        """Return the encoder in the names of the DINOv2 training code, as a `brainfound_*`."""
        architecture = f"brainfound_{recipe.encoder.size}"
        tensors = to_dinov2(self.encoder.state_dict())
        sequences = recipe.slabs.sequences
        options: dict[str, Any] = {
            "sequences": None if sequences is None else list(sequences),
            "slices": recipe.slabs.slices,
            "image_size": recipe.encoder.image_size,
        }
        return Exported(tensors, architecture, f"{architecture}.trained", options)


def start_weights(encoder: Encoder, target: Dinov2, slabs: SlabRecipe) -> Mapping[str, Tensor]:
    """Return the weights that a network of slabs starts with.

    Args:
        encoder: DINOv2 of images (`inflated`), or BrainFound of the same slabs.
        target: the network of slabs, for its sizes.
        slabs: what its channels are.

    Raises:
        ValueError: another kind of network, other sizes, or other slabs.
    """
    if not isinstance(encoder, Dinov2) or encoder.width != target.width:
        raise InputError("encoder.init holds another network; allowed: DINOv2's, of the same width")
    if encoder.input_spec.divisor != target.input_spec.divisor:
        raise InputError(
            f"encoder.init holds a network with patches of {encoder.input_spec.divisor} px; "
            f"allowed here: {target.input_spec.divisor}"
        )
    mask_token = torch.zeros(1, target.width)
    if not isinstance(encoder, BrainFoundEncoder):
        channels = slabs.channels // slabs.slices
        return {**inflated(encoder, target, channels, slabs.slices), "mask_token": mask_token}
    if (encoder.sequences, encoder.input_spec.slices) != (slabs.sequences, slabs.slices):
        own = ", ".join(encoder.sequences or ("any one sequence",))
        raise InputError(
            f"encoder.init was trained on slabs of {own} with {encoder.input_spec.slices} slices; "
            "allowed: the same slabs.sequences and slabs.slices, or a DINOv2 file"
        )
    positions = encoder._offset_positions(*target.vit.patch_embed.grid_size)
    return {**encoder.state_dict(), "vit.pos_embed": positions, "mask_token": mask_token}


def inflated(encoder: Dinov2, target: Dinov2, sequences: int, slices: int) -> dict[str, Tensor]:
    """Turn the weights of a DINOv2 network of RGB images into those of one of slabs.

    The patch embedding is inflated around the middle slice: other slices get zeros. Three sequences
    take the three colours, as in the authors' figure; otherwise each sequence gets the sum of the
    colours divided by the number of sequences. So the network of slabs is, at the start, that of
    images on the middle slice. Positions are resized as in DINOv2's training code (`offset`).

    Args:
        encoder: of images.
        target: of slabs, for its sizes.
        sequences: number of sequences.
        slices: of each sequence.

    Raises:
        ValueError: a network of other inputs than three channels.
    """
    weights = dict(encoder.state_dict())
    name = "vit.patch_embed.proj.weight"
    kernel = weights[name]
    if kernel.shape[1] != RGB:
        raise InputError(
            f"encoder.init holds a network of {kernel.shape[1]} channels; allowed: DINOv2's of 3"
        )
    if sequences != RGB:
        mean = kernel.sum(1, keepdim=True) / sequences
        kernel = mean.expand(-1, sequences, -1, -1)
    of_slabs = kernel.new_zeros(len(kernel), sequences, slices, *kernel.shape[2:])
    of_slabs[:, :, slices // 2] = kernel
    weights[name] = of_slabs.flatten(1, 2)
    weights["vit.pos_embed"] = encoder._offset_positions(*target.vit.patch_embed.grid_size)
    return weights
