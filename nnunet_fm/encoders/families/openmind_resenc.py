"""ResEnc-L, the encoder of nnU-Net's residual U-Net, as several groups pretrained it.

OpenMind: Wald et al., arXiv:2412.17041. nnFoundation: arXiv:2609.26924. FOMO's ResEnc-B has the
same tensors under other names (Sllambias/asparagus, resenc_unet.py), and other axes.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from torch import Tensor

from nnunet_fm.encoders.contract import Z_SCORE_EVERYWHERE
from nnunet_fm.encoders.families.unet import CONVOLUTIONS, VolumeUNetEncoder
from nnunet_fm.encoders.key_format import (
    PROJECTORS,
    Converted,
    KeyFormat,
    place_under,
    renamed,
)
from nnunet_fm.encoders.registry import (
    register_architecture,
    register_cards,
    register_key_format,
)
from nnunet_fm.encoders.weight_card import WeightCard
from nnunet_fm.internal.errors import InputError

BLOCKS = ("0.convs.0", "blocks.0.conv1")  # first convolution of a plain and of a residual stage
NNUNET, FOMO = "nnU-Net encoder", "FOMO"  # key formats
_FOMO = ((r"^stem\.conv1\.", "stem.convs.0."), (r"\.norm_op\.", ".norm."))
_EXCLUDED = re.compile(r"(decoder|seg_layers)\..*")


def resenc(
    taps: Sequence[int] | None = None,
    widths: Sequence[int] = (32, 64, 128, 256, 320, 320),
    blocks: Sequence[int] = (1, 3, 4, 6, 6, 6),
    axis_order: str = "zyx",
    image_orientation: str | None = None,
) -> VolumeUNetEncoder:
    """Build ResEnc-L: cubes of 160 voxels, z-score without a mask.

    Args:
        taps: stages whose maps are returned; all if None.
        axis_order: `zyx`, as acquired, for OpenMind, nnFoundation and nnU-Net; `xyz` in RAS for
            FOMO.
        image_orientation: of the images that it is used on, e.g. `LPS`, to turn them to the RAS of
            FOMO's pretraining; None leaves them as they are.
        widths: channels of the stages.
        blocks: residual blocks of the stages.

    Raises:
        InputError: other axes, or an orientation for weights that had their images as acquired.
    """
    if axis_order not in ("zyx", "xyz"):
        raise InputError(f"axis_order {axis_order!r}; allowed: zyx, xyz")
    if image_orientation is not None and axis_order == "zyx":
        raise InputError(
            f"image_orientation={image_orientation}: these weights were pretrained on images as "
            "acquired, to which nothing can be turned; omit it"
        )
    body = ResidualEncoder(
        1,
        len(widths),
        list(widths),
        kernel_sizes=3,
        strides=[1, *[2] * (len(widths) - 1)],
        n_blocks_per_stage=list(blocks),
        **CONVOLUTIONS,
    )
    orientation = "RAS" if axis_order == "xyz" else "as acquired"
    return VolumeUNetEncoder(
        body, taps, widths, 160, axis_order, Z_SCORE_EVERYWHERE, orientation, image_orientation
    )


def from_unet(state: Mapping[str, Tensor]) -> Converted:
    """Convert nnU-Net's and nnssl's names of a U-Net's encoder; the decoder is dropped."""
    return place_under(state, "body.", _EXCLUDED, "decoder of the pretraining")


def from_fomo(state: Mapping[str, Tensor]) -> Converted:
    """Convert FOMO's names of the same encoder: `stem.conv1`, `norm_op`; its axes are (x, y, z)."""
    converted = from_unet(renamed(state, _FOMO))
    converted.options["axis_order"] = "xyz"  # its code reads NIfTI with nibabel
    return converted


def _is_fomo(state: Mapping[str, Tensor]) -> bool:
    return "stages.0.blocks.0.conv1.norm_op.weight" in state


def _is_unet(state: Mapping[str, Tensor]) -> bool:
    names = [f"stages.0.{block}.conv.weight" for block in BLOCKS]
    found = any(name in state or f"body.{name}" in state for name in names)
    return found and not _is_fomo(state)


register_architecture("openmind_resencl", resenc, PROJECTORS)
register_architecture(
    "volume_testpyramid", partial(resenc, widths=(4, 6, 8), blocks=(1, 1, 1)), PROJECTORS
)
register_key_format(KeyFormat(FOMO, _is_fomo, from_fomo))
register_key_format(KeyFormat(NNUNET, _is_unet, from_unet))


def _card(name: str, key_format: str, files: tuple[str, ...], **fields: Any) -> WeightCard:
    return WeightCard(
        name=name,
        architecture="openmind_resencl",
        ignored=PROJECTORS,
        spatial_dims=3,
        files=files,
        formats=(key_format,),
        by_files_alone=True,  # these, SSL3D's and nnU-Net's own files have the same tensors
        **fields,
    )


register_cards(
    _card(
        "openmind_resencl.mae",
        NNUNET,
        ("*/*resencl-openmind*",),
        licence="CC BY 4.0 (as its card says)",
        source=(
            "checkpoint_final.pth of https://huggingface.co/MIC-DKFZ/"
            "ResEncL-OpenMind-MAE (and -VF, -VoCo, ...)"
        ),
        hub="hf://MIC-DKFZ/ResEncL-OpenMind-MAE/checkpoint_final.pth",
        pretrained_on=("OpenMind", "OpenNeuro"),
        citation="arXiv:2412.17041",
    ),
    _card(
        "nnfoundation_resencl.mae",
        NNUNET,
        ("*/*nnfoundationcnn*",),
        licence="CC BY-SA 4.0",
        source="https://huggingface.co/MIC-DKFZ/nnFoundationCNN",
        hub="hf://MIC-DKFZ/nnFoundationCNN",
        pretrained_on=("2.1 million CT, MRI and PET scans, see its paper",),
        citation="arXiv:2609.26924",
    ),
    _card(
        "fomo_resencb.fomo300k",
        FOMO,
        ("*/*amaes_resenc_b_fomo300k*/*", "resenc_unet_b.ckpt"),
        orientation="RAS",
        licence="not stated",
        code_licence="Apache-2.0",
        source="last.ckpt of https://huggingface.co/FOMO-MRI/AMAES_resenc_b_fomo300k",
        hub="hf://FOMO-MRI/AMAES_resenc_b_fomo300k/last.ckpt",
        pretrained_on=("FOMO300K", "OpenNeuro"),
        citation="arXiv:2506.14432",
        downstream="the mean of the last map",
    ),
)
