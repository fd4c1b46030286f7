"""OpenMind's Primus-M and nnFoundation's ViT, from parts of dynamic-network-architectures.

Primus: Wald et al., arXiv:2503.01835. OpenMind: arXiv:2412.17041. nnFoundation: arXiv:2609.26924.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

from dynamic_network_architectures.building_blocks.eva import Eva
from dynamic_network_architectures.building_blocks.patch_encode_decode import PatchEmbed
from jaxtyping import Float
from timm.layers import RotaryEmbeddingCat
from torch import Tensor, nn
from torch.nn import functional

from nnunet_fm.encoders.contract import (
    Z_SCORE_EVERYWHERE,
    Encoder,
    FeatureInfo,
    InputSpec,
    check_sides,
    groups_around_blocks,
    parameters_without,
)
from nnunet_fm.encoders.key_format import PROJECTORS, Converted, KeyFormat, place_under
from nnunet_fm.encoders.registry import (
    register_architecture,
    register_cards,
    register_key_format,
)
from nnunet_fm.encoders.taps import checked_taps, default_taps
from nnunet_fm.encoders.weight_card import WeightCard
from nnunet_fm.internal.errors import InputError

ORDERS = ("hwd", "whd")
POSITIONS = ("interpolate", "crop")
METHODS = ("MAE", "MG", "VF", "VoCo", "SimCLR", "SwinUNETR", "S3D")  # nnssl's, without SimMIM
_EXCLUDED = re.compile(r"(decoder|up_projection|mask_token|.*_head|.*projector)(\..*)?")


class VolumePrimus(Encoder):
    """A transformer with learned and rotary positions, on one channel.

    Args:
        taps: blocks whose output is returned, 0-based, increasing; the last block's goes through
            the final norm. The last block of each quarter if None.
        image_size: side of the pretraining cubes, in voxels.
        patch_size: side of a patch, in voxels.
        width, depth, num_heads: of the transformer; those of Primus-M.
        token_order: order of the tokens in pretraining. nnssl's MAE and most of its methods
            exchange the first two axes (`hwd`); SimMIM and dynamic-network-architectures' own
            Primus do not (`whd`). Shapes and names are the same.
        positions: how learned positions fit a grid other than the native one: resized
            (`interpolate`, trilinear, float32), or cut from the middle (`crop`), which agrees with
            the rotary positions.

    Raises:
        InputError: another order or kind of positions, or a tap outside the blocks.
    """

    kind = "tokens"
    in_channels = 1

    def __init__(
        self,
        taps: Sequence[int] | None = None,
        image_size: int = 160,
        patch_size: int = 8,
        width: int = 864,
        depth: int = 16,
        num_heads: int = 12,
        token_order: str = "hwd",
        positions: str = "interpolate",
    ) -> None:
        super().__init__()
        for name, given, allowed in (
            ("token_order", token_order, ORDERS),
            ("positions", positions, POSITIONS),
        ):
            if given not in allowed:
                raise InputError(f"{name} {given!r}; allowed: {', '.join(allowed)}")
        self.side = image_size // patch_size
        self.down_projection = PatchEmbed((patch_size,) * 3, 1, width)
        self.eva = Eva(
            width,
            depth,
            num_heads,
            ref_feat_shape=(self.side,) * 3,
            init_values=0.1,
            scale_attn_inner=True,
        )
        self.taps = checked_taps(taps, depth, default_taps(depth))
        self.depth = depth
        self.exchanged = token_order == "hwd"
        self.positions = positions
        self.input_spec = InputSpec(
            3,
            patch_size,
            (image_size,) * 3,
            "zyx",
            orientation="as acquired",
            intensity=Z_SCORE_EVERYWHERE,
        )
        self.feature_info = [FeatureInfo(width, patch_size, f"eva.blocks.{i}") for i in self.taps]

    def features(self, x: Float[Tensor, "b c z y x"]) -> list[Float[Tensor, "b d tz ty tx"]]:
        """Return the tokens of the tapped blocks as feature maps.

        Raises:
            InputError: a side of the input is not a multiple of the patch; a grid larger than the
                native one with `crop`.
        """
        check_sides(x.shape[2:], self.input_spec.divisor, "patch size")
        patches = self._exchange(self.down_projection(x))
        grid = tuple(patches.shape[2:])
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = tokens + self._learned(grid)
        rope = self._rope(grid).to(tokens.device)
        maps = []
        for number, block in enumerate(self.eva.blocks[: self.taps[-1] + 1]):
            tokens = self.run_block(block, tokens, rope=rope)
            if number in self.taps:
                maps.append(self.eva.norm(tokens) if number == self.depth - 1 else tokens)
        return [self._exchange(t.transpose(1, 2).unflatten(2, grid)) for t in maps]

    def _exchange(self, x: Float[Tensor, "b d i j k"]) -> Tensor:
        return x.transpose(2, 3) if self.exchanged else x

    def _learned(self, grid: tuple[int, ...]) -> Float[Tensor, "1 n d"]:
        """Return the learned positions, fitted unless the grid is the native one."""
        native = cast(Tensor, self.eva.pos_embed)
        if grid == (self.side,) * 3:
            return native
        cube = native.transpose(1, 2).unflatten(2, (self.side,) * 3)
        if self.positions == "interpolate":
            cube = functional.interpolate(cube.float(), grid, mode="trilinear", align_corners=False)
        elif max(grid) > self.side:
            raise InputError(
                f"positions 'crop' with a grid of {grid}; allowed: up to {self.side} a side"
            )
        else:
            for axis, side in enumerate(grid, start=2):
                cube = cube.narrow(axis, (self.side - side) // 2, side)
        return cube.flatten(2).transpose(1, 2)

    def _rope(self, grid: tuple[int, ...]) -> Float[Tensor, "n r"]:
        """Return the rotary positions, one unit apart for any grid."""
        shape, dim = list(grid), cast(Any, self.eva.rope).dim
        made = RotaryEmbeddingCat(dim, in_pixels=False, feat_shape=shape, ref_feat_shape=shape)
        return cast(Tensor, made.pos_embed)

    def active_parameters(self) -> Iterator[nn.Parameter]:
        """Yield all parameters except those above the last tap."""
        norm = [self.eva.norm] if self.taps[-1] < self.depth - 1 else []
        return parameters_without(self, [*self.eva.blocks[self.taps[-1] + 1 :], *norm])

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return the embeddings, each block, and the final norm."""
        return groups_around_blocks(self, self.eva.blocks, self.eva.norm)

    def set_fused_attention(self, enabled: bool) -> None:
        """Use torch's fused attention: the same result with less memory."""
        for block in self.eva.blocks:
            cast(Any, block).attn.fused_attn = enabled


def from_primus(state: Mapping[str, Tensor]) -> Converted:
    """Keep nnssl's names of Primus, which are ours; the decoder is dropped."""
    return place_under(state, "", _EXCLUDED, "decoder or head of the pretraining")


def sizes_in_file(
    tensors: Mapping[str, Tensor],
    image: int,
    kernel: str = "down_projection.proj.weight",
    positions: str = "eva.pos_embed",
    prefix: int = 0,
) -> dict[str, int]:
    """Return the option `image_size` where a file's positions are not for the architecture's.

    VoCo and SimCLR were trained on cubes of 64 voxels (nnssl's vocoEvaTrainer.py).

    Args:
        tensors: in our names.
        image: side of the cubes that the architecture's positions are for, in voxels.
        kernel: name of the kernel of the patches.
        positions: name of the learned positions.
        prefix: number of positions in front of those of the patches.
    """
    if kernel not in tensors or positions not in tensors:
        return {}
    cells = tensors[positions].shape[1] - prefix
    found = round(cells ** (1 / 3)) * tensors[kernel].shape[-1]
    return {} if found == image else {"image_size": found}


def _is_primus(state: Mapping[str, Tensor]) -> bool:
    return "down_projection.proj.weight" in state and "eva.pos_embed" in state


def _card(tag: str, token_order: str, methods: tuple[str, ...]) -> WeightCard:
    others = f" (or -{', -'.join(methods[1:])})"
    return WeightCard(
        name=f"openmind_primusm.{tag}",
        architecture="openmind_primusm",
        options={"token_order": token_order},
        licence="CC BY 4.0 (as its card says)",
        source=(
            "checkpoint_final.pth of https://huggingface.co/MIC-DKFZ/"
            f"PrimusM-OpenMind-{methods[0]}{others if methods[1:] else ''}"
        ),
        hub=f"hf://MIC-DKFZ/PrimusM-OpenMind-{methods[0]}/checkpoint_final.pth",
        pretrained_on=("OpenMind", "OpenNeuro"),
        citation="arXiv:2412.17041",
        spatial_dims=3,
        ignored=PROJECTORS,
        files=tuple(f"*primusm-openmind-{method}*/*" for method in methods),
        by_files_alone=True,
    )


register_architecture(
    "openmind_primusm", VolumePrimus, PROJECTORS, shown=partial(sizes_in_file, image=160)
)
register_architecture(
    "nnfoundation_primus",
    partial(VolumePrimus, image_size=192, width=1056, depth=40, num_heads=16),
    PROJECTORS,
    shown=partial(sizes_in_file, image=192),
)
register_architecture(
    "volume_testprimus",
    partial(VolumePrimus, image_size=32, width=24, depth=4, num_heads=2),
    PROJECTORS,
    shown=partial(sizes_in_file, image=32),
)
register_key_format(KeyFormat("Primus", _is_primus, from_primus))
register_cards(
    _card("mae", "hwd", METHODS),
    _card("simmim", "whd", ("SimMIM",)),
    WeightCard(
        name="nnfoundation_primus.mae",
        architecture="nnfoundation_primus",
        licence="CC BY-SA 4.0",
        source="https://huggingface.co/MIC-DKFZ/nnFoundationViT",
        hub="hf://MIC-DKFZ/nnFoundationViT",
        pretrained_on=("2.1 million CT, MRI and PET scans, see its paper",),
        citation="arXiv:2609.26924",
        spatial_dims=3,
        ignored=PROJECTORS,
        files=("*/*nnfoundationvit*",),
        by_files_alone=True,
        unverified="the order of the tokens is that of nnssl's masked autoencoder; it was not "
        "checked against the authors' code",
    ),
)
