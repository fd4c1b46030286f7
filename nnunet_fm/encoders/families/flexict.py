"""FlexiCT: a DINOv3 transformer of one channel, on slices and on volumes.

Source: the authors' code (ricklisz/FlexiCT, flexi_ct/models.py, layers/attention.py and
layers/rope_position_encoding.py; arXiv:2605.21906).
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from timm.layers import LayerNorm
from timm.models.eva import EvaBlock
from torch import Tensor, nn
from torch.nn import functional

from nnunet_fm.encoders.axes import Turn
from nnunet_fm.encoders.contract import InputSpec
from nnunet_fm.encoders.families.dino_tokens import EPS, DinoTokens
from nnunet_fm.encoders.families.dinov3 import PRETRAINING_HEADS
from nnunet_fm.encoders.families.rotary import Round, rotary_table
from nnunet_fm.encoders.key_format import Converted, KeyFormat, takes_slices
from nnunet_fm.encoders.registry import (
    register_architecture,
    register_cards,
    register_key_format,
)
from nnunet_fm.encoders.weight_card import WeightCard
from nnunet_fm.internal.errors import InputError

BASE = 100.0  # of the rotary periods
CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
IMAGE = {2: 512, 3: 160}  # side of the pretraining images, in pixels or voxels
SPACING = 2.0  # of the pretraining volumes, in mm
CT = {
    2: "CT clipped to -1000 to 1000 HU, then z-score of each slice, all pixels",
    3: "CT clipped to -1000 to 1000 HU, then z-score of all voxels",
}
LANGUAGE_MODEL = (r"text_model\..*", r"logit_scale", r"vlm_vision_projection\..*")
TINY: dict[str, Any] = {"width": 24, "depth": 4, "num_heads": 2, "image_size": 32}  # of tests
# Those that are named in the training code (train_ct_2D_adaptive_patch.py:364-390), of 56.
DATA = (
    "AMOS22",
    "CT-RATE",
    "TotalSegmentator",
    "LUNA16",
    "LUNA25",
    "INSPECT",
    "HECKTOR",
    "HNSCC",
    "PANORAMA",
    "DeepLesion5K",
    "ULS23",
    "QIN",
    "StonyBrook",
)


class FlexiCT(DinoTokens):
    """DINOv3 with a kernel for slices and one for volumes in front of the same blocks.

    Args:
        taps: tapped blocks, see `DinoTokens`.
        dims: 2 for slices, 3 for volumes.
        patch_size: side of a patch, in pixels or voxels: one of `patch_sizes`. For patches larger
            than the kernels, these are resized by their pseudo-inverse (bicubic for slices,
            trilinear for volumes).
        pool: what `embed` returns, see `DinoTokens`; `both` is the image vector of FlexiCT-3D-VLM.
        image_orientation: of the volumes that it is used on, e.g. `RAS`, to turn them to the
            orientation of the pretraining; None leaves them as they are.
        kernels: dimensions for which there is a kernel.
        patch_sizes: that were trained; the first is the side of the kernels.
        width, depth, num_heads: of the transformer.
        storage_tokens: tokens between CLS and patches.
        qkv_bias: whether queries, keys and values carry a bias.
        image_size: side of the pretraining images, in pixels or voxels; 512 for slices and 160 for
            volumes if None.
        orientation: of the pretraining volumes.
        spacing: of the pretraining volumes, in mm.

    Raises:
        InputError: a dimension without a kernel, a patch size that was not trained, or an
            orientation of slices.
    """

    storage_tokens: nn.Parameter | None

    def __init__(
        self,
        taps: Sequence[int] | None = None,
        dims: int = 3,
        patch_size: int | None = None,
        pool: str = "cls",
        image_orientation: str | None = None,
        kernels: Sequence[int] = (2, 3),
        patch_sizes: Sequence[int] = (8, 16),
        width: int = 864,
        depth: int = 16,
        num_heads: int = 12,
        storage_tokens: int = 4,
        qkv_bias: bool = False,
        image_size: int | None = None,
        orientation: str = "LPS",
        spacing: float = SPACING,
    ) -> None:
        kernel_size = patch_sizes[0]
        patch = kernel_size if patch_size is None else patch_size
        _check_choice("dims", dims, kernels)
        _check_choice("patch_size", patch, patch_sizes)
        if dims == 2 and image_orientation is not None:
            raise InputError("image_orientation is for volumes (dims=3); omit it")
        prefix = 1 + storage_tokens
        blocks = [_block(width, num_heads, qkv_bias, prefix) for _ in range(depth)]
        image = (IMAGE[dims] if image_size is None else image_size,) * dims
        if dims == 2:
            spec, turn = InputSpec(2, patch, image), None
        else:
            voxel = (spacing,) * 3
            spec = InputSpec(3, patch, image, "zyx", orientation, spacing=voxel)
            turn = Turn("zyx", image_orientation, orientation)
        super().__init__(blocks, width, taps, spec, turn, pool)
        self.dims, self.patch, self.prefix = dims, patch, prefix
        enlarged = enlargement(kernel_size, patch, dims)
        self.register_buffer("enlarged", enlarged, persistent=False)
        stored = nn.Parameter(torch.zeros(1, storage_tokens, width)) if storage_tokens else None
        if stored is not None:
            nn.init.normal_(stored, std=0.02)
        self.register_parameter("storage_tokens", stored)
        self.kernels = nn.ModuleDict()
        for n in kernels:
            # no convolution, so that bfloat16 copies of encoders resize it in float32, too
            layer = CONVOLUTIONS[n](1, width, kernel_size, kernel_size)
            self.kernels[f"{n}d"] = nn.ParameterDict(dict(layer.named_parameters()))
            self.register_buffer(f"periods_{n}d", rotary_periods(width // num_heads, n))

    def embedded(self, x: Tensor) -> tuple[Float[Tensor, "b n d"], tuple[int, ...], dict[str, Any]]:
        """Return CLS, storage tokens and patches, their grid, and the rotary table."""
        kernel: Any = self.kernels[f"{self.dims}d"]
        weight = resized_kernel(kernel["weight"], self.get_buffer("enlarged"))
        convolve: Any = functional.conv2d if self.dims == 2 else functional.conv3d
        patches = convolve(x, weight, kernel["bias"], stride=self.patch)
        grid = tuple(patches.shape[2:])
        parts = (self.cls_token, self.storage_tokens)
        front = [part.expand(len(x), -1, -1) for part in parts if part is not None]
        tokens = torch.cat([*front, patches.flatten(2).transpose(1, 2)], 1)
        table = rotary_table(grid, self.get_buffer(f"periods_{self.dims}d"))
        return tokens, grid, {"rope": table}

    def active_parameters(self) -> Iterator[nn.Parameter]:
        """Yield all parameters without blocks above the last tap and the other kernel."""
        others = [kernel for name, kernel in self.kernels.items() if name != f"{self.dims}d"]
        unused = {id(p) for kernel in others for p in kernel.parameters()}
        return (p for p in super().active_parameters() if id(p) not in unused)


def _check_choice(name: str, given: int, allowed: Sequence[int]) -> None:
    if given not in allowed:
        raise InputError(f"{name}={given}; allowed: {' or '.join(map(str, allowed))}")


def _block(width: int, heads: int, qkv_bias: bool, prefix: int) -> EvaBlock:
    """Return a block whose queries and keys are rounded before the rotation."""
    block = EvaBlock(
        width,
        heads,
        qkv_bias=qkv_bias,
        attn_type="rope",  # the plain attention, whose keys may have a bias
        rotate_half=True,
        num_prefix_tokens=prefix,
        init_values=1e-5,
        norm_layer=partial(LayerNorm, eps=EPS),
    )
    block.attn.q_norm = block.attn.k_norm = Round()
    return block


def rotary_periods(head: int, dims: int) -> Float[Tensor, " n"]:
    """Return the periods of one axis: 100^(2k / (head / 2)), k from 0 to head / (2 dims) - 1.

    Source: FlexiCT, layers/rope_position_encoding.py. Files hold the periods, and theirs are used.
    """
    return BASE ** (2 * torch.arange(head // (2 * dims), dtype=torch.float32) / (head // 2))


def enlargement(own: int, side: int, dims: int) -> Float[Tensor, "side own"]:
    """Return the matrix that resizes a kernel along one axis.

    The resized kernel gives on an enlarged patch what the kernel gives on the patch (FlexiViT,
    Beyer et al., arXiv:2212.08013, section 3.4). Enlarging is separable, and so is its
    pseudo-inverse.

    Args:
        own: side of the kernel.
        side: of the wanted patches, at least as large.
        dims: 2 (bicubic) or 3 (trilinear).
    """
    identity = torch.eye(own)[None]
    if dims == 2:
        how: dict[str, Any] = {"mode": "bicubic", "antialias": True}
        enlarged = functional.interpolate(identity[None], (side, own), **how)[0, 0]
    else:
        enlarged = functional.interpolate(identity, side, mode="linear")[0].T
    return torch.linalg.pinv(enlarged.T)


def resized_kernel(
    weight: Float[Tensor, "d 1 *kernel"], matrix: Float[Tensor, "side own"]
) -> Tensor:
    """Return the kernel of larger patches, in float32; `matrix` is that of `enlargement`."""
    if matrix.shape[0] == matrix.shape[1]:
        return weight
    resized = weight.float()
    with torch.autocast(weight.device.type, enabled=False):
        for axis in range(2, weight.ndim):
            resized = torch.tensordot(resized, matrix.float(), dims=([axis], [1])).movedim(-1, axis)
    return resized


_RENAMES = {
    "patch_embed_2D.proj.": "kernels.2d.",
    "patch_embed_3D.proj.": "kernels.3d.",
    "patch_embed.proj.": "kernels.3d.",
    "rope_embed_2D.periods": "periods_2d",
    "rope_embed_3D.periods": "periods_3d",
    "rope_embed.periods": "periods_3d",
    ".ls1.gamma": ".gamma_1",
    ".ls2.gamma": ".gamma_2",
}


def from_flexict(state: Mapping[str, Tensor]) -> Converted:
    """Convert the authors' names: `patch_embed_3D`, `rope_embed_3D`, `ls1.gamma`."""
    result = Converted({})
    for key, value in state.items():
        name = key
        for theirs, ours in _RENAMES.items():
            name = name.replace(theirs, ours)
        result.tensors[name] = value.reshape(1, -1) if name == "mask_token" else value
    return result


def _is_flexict(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are FlexiCT's, ours, or DINOv3's with a kernel of volumes."""
    of_volumes = not takes_slices(state) and "rope_embed.periods" in state
    return of_volumes or "patch_embed_3D.proj.weight" in state or "kernels.3d.weight" in state


def _card(tag: str, dims: int, files: tuple[str, ...], **fields: Any) -> WeightCard:
    options = {"dims": dims, **fields.pop("options", {})}
    return WeightCard(
        name=f"flexict_vit8.{tag}",
        architecture="flexict_vit8",
        licence="CC BY-NC-ND 4.0",
        code_licence="MIT; some files have the header of the DINOv3 License",
        options=options,
        pretrained_on=DATA,
        citation="arXiv:2605.21906",
        spatial_dims=dims,
        files=files,
        by_files_alone=True,
        intensity=CT[dims],
        **fields,
    )


register_architecture("flexict_vit8", FlexiCT, PRETRAINING_HEADS + LANGUAGE_MODEL)
register_architecture("flexict_test8", partial(FlexiCT, **TINY), PRETRAINING_HEADS + LANGUAGE_MODEL)
register_key_format(KeyFormat("FlexiCT", _is_flexict, from_flexict, prefixes=("vision_model.",)))
register_cards(
    *(
        _card(
            f"ct{dims}d",
            dims,
            (f"ct_{dims}d_teacher.pth", f"{dims}d_final_model.pth", f"*flexict-{dims}d/*"),
            source=f"ct_{dims}d_teacher.pth of https://github.com/ricklisz/FlexiCT",
            hub=f"hf://ricklisz123/FlexiCT-{dims}D",
            ignored=PRETRAINING_HEADS,
            downstream="blocks 3, 7, 11, 15 after the final norm, fine-tuned",
        )
        for dims in (2, 3)
    ),
    _card(
        "vlm",
        3,
        ("ct_3d_vlm.pth", "3d_vlm_final_model.pth", "*flexict-3d-vlm/*"),
        options={"pool": "both"},
        source="ct_3d_vlm.pth of https://github.com/ricklisz/FlexiCT",
        hub="hf://ricklisz123/FlexiCT-3D-VLM",
        ignored=LANGUAGE_MODEL,
        downstream="the CLS token and the mean of the patches",
    ),
)
