"""OpenMind's ResEnc-L: the encoder of nnU-Net's residual U-Net (Wald et al., arXiv:2412.17041)."""

import re
from collections.abc import Mapping, Sequence
from functools import partial

from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from torch import Tensor

from nnunet_fm.encoders.contract import Z_SCORE_EVERYWHERE
from nnunet_fm.encoders.families.unet import CONVOLUTIONS, VolumeUNetEncoder
from nnunet_fm.encoders.key_format import PROJECTORS, Converted, KeyFormat, place_under
from nnunet_fm.encoders.registry import (
    register_architecture,
    register_cards,
    register_key_format,
)
from nnunet_fm.encoders.weight_card import WeightCard

BLOCKS = ("0.convs.0", "blocks.0.conv1")  # first convolution of a plain and of a residual stage
_EXCLUDED = re.compile(r"(decoder|seg_layers)\..*")


def resenc(
    taps: Sequence[int] | None = None,
    widths: Sequence[int] = (32, 64, 128, 256, 320, 320),
    blocks: Sequence[int] = (1, 3, 4, 6, 6, 6),
) -> VolumeUNetEncoder:
    """Build ResEnc-L as OpenMind pretrained it: cubes of 160 voxels, z-score without a mask.

    Args:
        taps: stages whose maps are returned; all if None.
        widths: channels of the stages.
        blocks: residual blocks of the stages.
    """
    body = ResidualEncoder(
        1,
        len(widths),
        list(widths),
        kernel_sizes=3,
        strides=[1, *[2] * (len(widths) - 1)],
        n_blocks_per_stage=list(blocks),
        **CONVOLUTIONS,
    )
    return VolumeUNetEncoder(body, taps, widths, 160, "zyx", Z_SCORE_EVERYWHERE)


def from_unet(state: Mapping[str, Tensor]) -> Converted:
    """Convert nnU-Net's and nnssl's names of a U-Net's encoder; the decoder is dropped."""
    return place_under(state, "body.", _EXCLUDED, "decoder of the pretraining")


def _is_unet(state: Mapping[str, Tensor]) -> bool:
    names = [f"stages.0.{block}.conv.weight" for block in BLOCKS]
    return any(name in state or f"body.{name}" in state for name in names)


register_architecture("openmind_resencl", resenc, PROJECTORS)
register_architecture(
    "volume_testpyramid", partial(resenc, widths=(4, 6, 8), blocks=(1, 1, 1)), PROJECTORS
)
register_key_format(KeyFormat("nnU-Net encoder", _is_unet, from_unet))
register_cards(
    WeightCard(
        name="openmind_resencl.mae",
        architecture="openmind_resencl",
        licence="CC BY 4.0 (as its card says)",
        source=(
            "checkpoint_final.pth of https://huggingface.co/MIC-DKFZ/"
            "ResEncL-OpenMind-MAE (and -VF, -VoCo, ...)"
        ),
        hub="hf://MIC-DKFZ/ResEncL-OpenMind-MAE/checkpoint_final.pth",
        pretrained_on=("OpenMind", "OpenNeuro"),
        citation="arXiv:2412.17041",
        ignored=PROJECTORS,
        spatial_dims=3,
        files=("*/*resencl-openmind*",),
        by_files_alone=True,  # nnFoundation, SSL3D and nnU-Net itself have the same network
    )
)
