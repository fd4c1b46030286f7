"""VolTA-3D: MONAI's 3-D vision transformer and a summary of its tokens (extra `[volume]`).

Makawana et al., section II.B. The transformer is that of MONAI's ViTAutoEnc, whose tensors UNETR
takes too. The summary is a learned token that attends to the tokens of the patches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from nnunet_fm.encoders.axes import STORED, Turn
from nnunet_fm.encoders.contract import ZERO_TO_ONE, checked_spacing, groups_around_blocks
from nnunet_fm.encoders.families.brainiac import VolumeViT
from nnunet_fm.encoders.key_format import PROJECTORS
from nnunet_fm.encoders.registry import register_architecture, register_cards
from nnunet_fm.encoders.weight_card import exported_card
from nnunet_fm.internal.errors import InputError

HEADS = 8  # of the summary's attention
CARRIED = ("summariser", "image_size", "spacing")  # options in the files of `pretrain export`
SIZES: Mapping[str, Mapping[str, Any]] = {
    "vitb16": {},
    "nano8": {
        "image_size": 48,
        "patch_size": 8,
        "hidden_size": 128,
        "mlp_dim": 512,
        "depth": 6,
        "num_heads": 4,
    },
    "test8": {
        "image_size": 16,
        "patch_size": 8,
        "hidden_size": 24,
        "mlp_dim": 48,
        "depth": 8,
        "num_heads": 2,
    },
}


class Summariser(nn.Module):
    """A learned token that attends to the patches' tokens in one transformer block.

    Args:
        width: of the tokens, a multiple of 8.

    Example:
        >>> import torch
        >>> tuple(Summariser(24)(torch.zeros(2, 27, 24)).shape)
        (2, 24)
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        self.block = Block(width, HEADS, qkv_bias=True)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        """Return the summary of each sample's tokens."""
        token = self.cls_token.to(tokens.dtype).expand(len(tokens), -1, -1)
        summary: Tensor = self.block(torch.cat([token, tokens], dim=1))
        return summary[:, 0]


class Volta3d(VolumeViT):
    """The transformer of VolTA-3D on one channel of intensities from 0 to 1.

    Args:
        taps: tapped blocks, see `VolumeViT`.
        summariser: whether the weights hold the summary too, as those of `pretrain export` do.
        pool: what `embed` returns: the `mean` of the tokens, or the `summary`.
        image_orientation: of the images that it is used on, e.g. `RAS`, to turn them to the LPS of
            the pretraining; None leaves them as they are.
        spacing: size of a voxel of the pretraining's global crops in mm (z, y, x), which `plan`
            reports and `pretrain probe` reads volumes at; None if unknown.
        **arguments: sizes, see `VolumeViT`.

    Raises:
        InputError: pool `summary` without a summariser, an unknown orientation, or a spacing that
            is not three positive numbers.

    Example:
        >>> import torch
        >>> from nnunet_fm.encoders import build_encoder
        >>> encoder = build_encoder("volta3d_test8", summariser=True, pool="summary")
        >>> tuple(encoder.embed(torch.zeros(2, 1, 16, 24, 16)).shape)
        (2, 24)
    """

    pools: ClassVar[tuple[str, ...]] = ("mean", "summary")

    def __init__(
        self,
        taps: Sequence[int] | None = None,
        summariser: bool = False,
        pool: str = "mean",
        image_orientation: str | None = None,
        spacing: Sequence[float] | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(taps, pool=pool, **arguments)
        if pool == "summary" and not summariser:
            raise InputError("pool=summary needs weights with a summary: summariser=true")
        self.summariser = Summariser(self.width) if summariser else None
        self.turn: Turn = Turn("xyz", image_orientation, STORED)
        self.input_spec = replace(
            self.input_spec,
            orientation=STORED,
            intensity=ZERO_TO_ONE,
            spacing=checked_spacing(spacing),
        )

    def embed(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d"]:
        """Return the mean of the last tokens after the final norm, or their summary."""
        tokens, _ = self.last_tokens(x)
        if self.pool == "summary" and self.summariser is not None:
            summary: Tensor = self.summariser(tokens)
            return summary
        return tokens.mean(1)

    def to_weights_axes(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b c i j k"]:
        """Turn an input to the axes and the orientation of the pretraining."""
        return self.turn.apply(x)

    def from_weights_axes(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c z y x"]:
        """Turn a map back to nnU-Net's axes."""
        return self.turn.undo(x)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return the embeddings, each block, and the final norm with the summary."""
        groups = groups_around_blocks(self.vit, self.vit.blocks, self.vit.norm)
        if self.summariser is not None:
            groups[-1] += self.summariser.parameters()
        return groups


def _register() -> None:
    for size, arguments in SIZES.items():
        name = f"volta3d_{size}"
        register_architecture(name, partial(Volta3d, **arguments), PROJECTORS, carried=CARRIED)
        # the tensors are MONAI's; an exported file names its card
        more = {"ignored": PROJECTORS, "spatial_dims": 3, "by_files_alone": True}
        register_cards(exported_card(name, "volta3d", "Makawana et al., VolTA-3D", **more))


_register()
