"""BrainIAC: MONAI's 3-D vision transformer (extra `[volume]`)."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nnunet_fm.encoders.axes import reverse_axes
from nnunet_fm.encoders.contract import (
    ZERO_TO_ONE,
    Encoder,
    FeatureInfo,
    InputSpec,
    check_sides,
    groups_around_blocks,
    parameters_without,
)
from nnunet_fm.encoders.key_format import PROJECTORS, Converted, KeyFormat
from nnunet_fm.encoders.registry import (
    register_architecture,
    register_cards,
    register_key_format,
)
from nnunet_fm.encoders.taps import checked_taps, unetr_taps
from nnunet_fm.encoders.weight_card import WeightCard
from nnunet_fm.internal.errors import InputError

UNUSED = ("cross_attn", "norm_cross_attn")  # some versions of MONAI make them; unused here
BRAINIAC_V1 = (
    "this is the BrainIAC of 2025, a ResNet50; the published one (Nature Neuroscience 2026) is a "
    "ViT-B/16, whose file holds backbone.patch_embedding.*. Get that one: "
    "nnunet-fm encoders show brainiac_vitb16.v2"
)
SUMMARY = "summariser."  # of VolTA-3D
UNETR = "unetr.vit."  # in files of the authors' segmentation
# Heads of the authors' classifiers, and the decoder of their UNETR.
TASK_HEADS = (r"classifier\..*", r"criterion\..*", r"unetr\.(encoder[1-4]|decoder[2-5]|out)\..*")
TINY: dict[str, Any] = {  # of tests
    "image_size": 48,
    "hidden_size": 24,
    "mlp_dim": 48,
    "depth": 8,
    "num_heads": 2,
}


class VolumeViT(Encoder):
    """A plain 3-D ViT on one channel, without a CLS token.

    The weights were trained on (x, y, z) volumes: nnU-Net's (z, y, x) axes are reversed at the
    input, and those of the features at the output. The position embedding is stored for its native
    grid and resized trilinearly, in float32, to other grids.

    Args:
        taps: blocks whose output is returned, 0-based, increasing; the last block's goes through
            the final norm. UNETR's taps if None.
        image_size: side of the cube that the position embedding is for, in voxels.
        patch_size: side of a patch, in voxels.
        hidden_size, mlp_dim, depth, num_heads, qkv_bias: of the transformer.
        pool: what `embed` returns: the `mean` of the tokens, or the `first` one, a corner patch, as
            BrainIAC's authors do.

    Raises:
        ValueError: a tap outside the blocks, or an unknown pool.
    """

    kind = "tokens"
    in_channels = 1
    pools: ClassVar[tuple[str, ...]] = ("mean", "first")

    def __init__(
        self,
        taps: Sequence[int] | None = None,
        image_size: int = 96,
        patch_size: int = 16,
        hidden_size: int = 768,
        mlp_dim: int = 3072,
        depth: int = 12,
        num_heads: int = 12,
        qkv_bias: bool = False,
        pool: str = "mean",
    ) -> None:
        from monai.networks.nets.vit import ViT

        super().__init__()
        if pool not in self.pools:
            raise InputError(f"pool {pool!r}; allowed: {', '.join(self.pools)}")
        shape: dict[str, Any] = {
            "hidden_size": hidden_size,
            "mlp_dim": mlp_dim,
            "num_layers": depth,
        }
        cube = (image_size,) * 3
        self.vit = ViT(1, cube, (patch_size,) * 3, num_heads=num_heads, qkv_bias=qkv_bias, **shape)
        for block in self.vit.blocks:
            for name in UNUSED:
                if hasattr(block, name):
                    delattr(block, name)
        self.taps = checked_taps(taps, depth, unetr_taps(depth))
        self.depth, self.pool, self.side = depth, pool, image_size // patch_size
        self.width = hidden_size
        self.input_spec = InputSpec(
            3, patch_size, cube, axis_order="xyz", orientation="as acquired"
        )
        self.feature_info = [FeatureInfo(hidden_size, patch_size, f"blocks.{i}") for i in self.taps]

    def features(self, x: Float[Tensor, "b c z y x"]) -> list[Float[Tensor, "b d tz ty tx"]]:
        """Return the tokens of the tapped blocks as feature maps.

        Raises:
            ValueError: a side of the input is not a multiple of the patch.
        """
        tokens, grid = self._embedded(x)
        maps = []
        for number, block in enumerate(self.vit.blocks[: self.taps[-1] + 1]):
            tokens = self.run_block(block, tokens)
            if number in self.taps:
                maps.append(self.vit.norm(tokens) if number == self.depth - 1 else tokens)
        return [self.as_map(t, grid) for t in maps]

    def embed(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d"]:
        """Return the mean of the last tokens after the final norm, or the first of them."""
        tokens, _ = self.last_tokens(x)
        return tokens[:, 0] if self.pool == "first" else tokens.mean(1)

    def last_tokens(
        self, x: Float[Tensor, "b c z y x"]
    ) -> tuple[Float[Tensor, "b n d"], tuple[int, ...]]:
        """Return the last tokens after the final norm, and their grid, in the weights' axes."""
        tokens, grid = self._embedded(x)
        for block in self.vit.blocks:
            tokens = self.run_block(block, tokens)
        return self.vit.norm(tokens), grid

    def to_weights_axes(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b c i j k"]:
        """Turn an input to the axes of the pretraining."""
        return reverse_axes(x)

    def from_weights_axes(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c z y x"]:
        """Turn a map back to nnU-Net's axes."""
        return reverse_axes(x)

    def _embedded(
        self, x: Float[Tensor, "b c z y x"]
    ) -> tuple[Float[Tensor, "b n d"], tuple[int, ...]]:
        """Return patches plus positions, and the grid in the weights' order of axes."""
        check_sides(x.shape[2:], self.input_spec.divisor, "patch size")
        patches = self.vit.patch_embedding.patch_embeddings(self.to_weights_axes(x))
        grid = tuple(patches.shape[2:])
        return patches.flatten(2).transpose(1, 2) + self.positions(grid), grid

    def as_map(
        self, tokens: Float[Tensor, "b n d"], grid: tuple[int, ...]
    ) -> Float[Tensor, "b d tz ty tx"]:
        """Return tokens as a feature map, in nnU-Net's axes."""
        return self.from_weights_axes(tokens.transpose(1, 2).unflatten(2, grid))

    def positions(self, grid: tuple[int, ...]) -> Float[Tensor, "1 n d"]:
        """Return the position embedding, resized unless the grid is the native one."""
        return resized_positions(self.vit.patch_embedding.position_embeddings, self.side, grid)

    def active_parameters(self) -> Iterator[nn.Parameter]:
        """Yield all parameters except those above the last tap."""
        norm = [self.vit.norm] if self.taps[-1] < self.depth - 1 else []
        return parameters_without(self.vit, [*self.vit.blocks[self.taps[-1] + 1 :], *norm])

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return the embeddings, each block, and the final norm."""
        return groups_around_blocks(self, self.vit.blocks, self.vit.norm)

    def set_fused_attention(self, enabled: bool) -> None:
        """Use torch's fused attention: the same result with less memory."""
        for block in self.vit.blocks:
            cast(Any, block).attn.use_flash_attention = enabled


def resized_positions(
    positions: Float[Tensor, "1 n d"], side: int, grid: tuple[int, ...]
) -> Float[Tensor, "1 m d"]:
    """Return the positions of a cube of patches for another grid, resized trilinearly.

    Args:
        positions: learned, slowest axis first.
        side: patches along each axis of the cube.
        grid: patches along each axis that are wanted.
    """
    if grid == (side,) * 3:
        return positions
    cube = positions.float().transpose(1, 2).unflatten(2, (side,) * 3)
    resized = functional.interpolate(cube, grid, mode="trilinear", align_corners=False)
    return resized.flatten(2).transpose(1, 2)


def from_monai_vit(state: Mapping[str, Tensor]) -> Converted:
    """Convert MONAI's names of a ViT; cross attention, which a plain ViT lacks, is dropped.

    BrainIAC's segmentation files hold two: UNETR's, which segmented, and one that was not used.
    """
    result = Converted({})
    segments = any(key.startswith(UNETR) for key in state)
    for key, value in state.items():
        if ".cross_attn." in key or ".norm_cross_attn." in key:
            result.dropped[key] = "cross attention, not used in a plain ViT"
        elif key.startswith("conv3d_transpose"):
            result.dropped[key] = "decoder of the pretraining (ViTAutoEnc)"
        elif segments and key.startswith("vit."):
            result.dropped[key] = "transformer that the segmentation network did not use"
        else:
            name = key.removeprefix(UNETR)
            known = name.startswith(("vit.", SUMMARY))
            result.tensors[name if known else f"vit.{name}"] = value
    return result


def _is_monai_vit(state: Mapping[str, Tensor]) -> bool:
    name = "patch_embedding.position_embeddings"
    return any(f"{prefix}{name}" in state for prefix in ("", "vit.", UNETR))


def _is_brainiac_v1(state: Mapping[str, Tensor]) -> bool:
    stems = [v.shape for key, v in state.items() if key.endswith("conv1.weight")]
    return (64, 1, 7, 7, 7) in stems


def _refuse_brainiac_v1(state: Mapping[str, Tensor]) -> Converted:
    raise InputError(BRAINIAC_V1)


register_architecture("brainiac_vitb16", VolumeViT, PROJECTORS + TASK_HEADS)
register_architecture("volume_test16", partial(VolumeViT, **TINY), PROJECTORS + TASK_HEADS)
register_key_format(KeyFormat("MONAI ViT", _is_monai_vit, from_monai_vit))
register_key_format(
    KeyFormat("BrainIAC of 2025", _is_brainiac_v1, _refuse_brainiac_v1, generic=True)
)
register_cards(
    WeightCard(
        name="brainiac_vitb16.v2",
        architecture="brainiac_vitb16",
        licence="non-commercial academic research only (Mass General Brigham)",
        source="BrainIAC.ckpt of the authors, https://github.com/AIM-KannLab/BrainIAC",
        pretrained_on=("brain MRI of many cohorts, see its paper",),
        citation="10.1038/s41593-026-02202-6",
        ignored=PROJECTORS,
        spatial_dims=3,
        files=("*brainiac*", "*brainiac*/backbone.safetensors"),
        by_files_alone=True,  # a ViT-B of MONAI, which anybody may have trained
        orientation="LAS (its template)",
        downstream="the first token, a corner patch (--encoder-option pool=first)",
    ),
    WeightCard(
        name="volta3d_vitb16.t1",
        architecture="brainiac_vitb16",  # the same transformer
        licence="not released",
        source="no release was found; a state dict of MONAI's ViTAutoEnc fits",
        pretrained_on=("T1-weighted MRI, see its paper",),
        spatial_dims=3,
        files=("*volta*",),
        by_files_alone=True,
        intensity=ZERO_TO_ONE,
        orientation="RAS",
    ),
)
