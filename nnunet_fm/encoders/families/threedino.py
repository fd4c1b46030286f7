"""3DINO and Med3DINO: DINOv2 transformers of volumes of one channel.

Source: AICONSlab/3DINO, dinov2/models/vision_transformer.py (doi 10.1038/s41746-025-02035-w).
Med3DINO is trained with a copy of the same code.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from nnunet_fm.encoders.axes import Turn
from nnunet_fm.encoders.contract import InputSpec
from nnunet_fm.encoders.families.dino_tokens import EPS, DinoTokens
from nnunet_fm.encoders.families.dinov2 import OFFSET
from nnunet_fm.encoders.families.dinov2_keys import without_chunks
from nnunet_fm.encoders.families.dinov3 import PRETRAINING_HEADS
from nnunet_fm.encoders.families.primus import sizes_in_file
from nnunet_fm.encoders.key_format import Converted, KeyFormat, takes_slices
from nnunet_fm.encoders.registry import (
    register_architecture,
    register_cards,
    register_key_format,
)
from nnunet_fm.encoders.weight_card import WeightCard

IMAGE = 112  # side of 3DINO's cubes, in voxels
TINY: dict[str, Any] = {"width": 24, "depth": 4, "num_heads": 2, "patch_size": 8, "image_size": 24}


class ThreeDino(DinoTokens):
    """A plain transformer with a CLS token and learned positions.

    Positions fit other grids as in DINOv2's training code: resized by the factor
    (side + 0.1) / native side, trilinearly, in float32.

    Args:
        taps: tapped blocks, see `DinoTokens`.
        image_size: side of the cube that the positions are for, in voxels.
        patch_size: side of a patch, in voxels.
        width, depth, num_heads: of the transformer.
        pool: what `embed` returns, see `DinoTokens`.
        image_orientation: of the images that it is used on, e.g. `LPS`, to turn them to the RAS of
            the pretraining; None leaves them as they are.
    """

    def __init__(
        self,
        taps: Sequence[int] | None = None,
        image_size: int = IMAGE,
        patch_size: int = 16,
        width: int = 1024,
        depth: int = 24,
        num_heads: int = 16,
        pool: str = "cls",
        image_orientation: str | None = None,
    ) -> None:
        blocks = [
            Block(
                width,
                num_heads,
                qkv_bias=True,
                init_values=1e-5,
                norm_layer=partial(nn.LayerNorm, eps=EPS),
            )
            for _ in range(depth)
        ]
        spec = InputSpec(
            3,
            patch_size,
            (image_size,) * 3,
            "xyz",
            orientation="RAS",
            intensity="-1 to 1, between the percentiles 0.05 and 99.95",
        )
        super().__init__(blocks, width, taps, spec, Turn("xyz", image_orientation), pool)
        self.side = image_size // patch_size
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(1, width, patch_size, patch_size)})
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.side**3, width))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def embedded(self, x: Tensor) -> tuple[Float[Tensor, "b n d"], tuple[int, ...], dict[str, Any]]:
        """Return CLS and patches with their positions, and the grid."""
        patches = self.patch_embed["proj"](x)
        grid = tuple(patches.shape[2:])
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1)
        return tokens + self._positions(grid), grid, {}

    def _positions(self, grid: tuple[int, ...]) -> Float[Tensor, "1 n d"]:
        """Return the positions of a grid, resized unless it is the native one."""
        if grid == (self.side,) * 3:
            return self.pos_embed
        first, cube = self.pos_embed[:, :1], self.pos_embed[:, 1:].float()
        cube = cube.transpose(1, 2).unflatten(2, (self.side,) * 3)
        factors = [(side + OFFSET) / self.side for side in grid]
        resized = functional.interpolate(cube, scale_factor=factors, mode="trilinear")
        return torch.cat([first, resized.flatten(2).transpose(1, 2).to(first.dtype)], 1)


def from_threedino(state: Mapping[str, Tensor]) -> Converted:
    """Convert the authors' names, which number blocks by chunk and block (`blocks.1.6.norm1`)."""
    return Converted({without_chunks(key): value for key, value in state.items()})


def _is_threedino(state: Mapping[str, Tensor]) -> bool:
    return {"pos_embed", "mask_token", "norm.weight"} <= state.keys() and not takes_slices(state)


def _med3dino(variant: str, spacing: str) -> WeightCard:
    return WeightCard(
        name=f"med3dino_vitl16.{variant}",
        architecture="3dino_vitl16",
        licence="not stated",
        source=f"c96_{variant}_teacher_checkpoint.pth ({spacing}) of "
        "https://huggingface.co/maregu2023/Med3DINO",
        hub=f"hf://maregu2023/Med3DINO/c96_{variant}_teacher_checkpoint.pth",
        pretrained_on=("SA-Med3D", "autoPET", "AbdomenAtlas", "ImageCAS", "ToothFairy3", "HECKTOR"),
        ignored=PRETRAINING_HEADS,
        spatial_dims=3,
        files=(f"c96_{variant}_teacher_checkpoint.pth",),
        by_files_alone=True,
        unverified="names of tensors, intensities and orientation are 3DINO's, whose code its "
        "authors extended; no file was seen",
    )


def _register() -> None:
    names: dict[str, Any] = {
        "kernel": "patch_embed.proj.weight",
        "positions": "pos_embed",
        "prefix": 1,
    }
    own: dict[str, dict[str, Any]] = {"3dino_vitl16": {}, "3dino_test8": TINY}
    for name, sizes in own.items():
        image = sizes.get("image_size", IMAGE)
        shown = partial(sizes_in_file, image=image, **names)
        register_architecture(name, partial(ThreeDino, **sizes), PRETRAINING_HEADS, shown=shown)
    register_key_format(KeyFormat("3DINO", _is_threedino, from_threedino))
    register_cards(
        WeightCard(
            name="3dino_vitl16.mrict",
            architecture="3dino_vitl16",
            options={"image_size": IMAGE},
            licence="CC BY-NC-ND 4.0, no use by industry",
            source="3dino_vit_weights.pth of https://huggingface.co/AICONSlab/3DINO-ViT (gated)",
            hub="hf://AICONSlab/3DINO-ViT/3dino_vit_weights.pth",
            pretrained_on=("about 100,000 MRI and CT volumes, see its paper",),
            citation="10.1038/s41746-025-02035-w",
            ignored=PRETRAINING_HEADS,
            spatial_dims=3,
            files=("3dino_vit_weights.*",),
            by_files_alone=True,
            downstream="each channel by itself; blocks 5, 11, 17, 23 after the final norm; the CLS "
            "token for classification",
        ),
        _med3dino("iso", "1.5 mm"),
        _med3dino("rel", "spacing of the image"),
        _med3dino("sa", "spacing of the image, with the physical depth"),
    )


_register()
