"""AMAES: the encoder of a plain 3-D U-Net (Munk et al., arXiv:2408.00640)."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from torch import Tensor

from nnunet_fm.encoders.contract import ZERO_TO_ONE
from nnunet_fm.encoders.families.unet import CONVOLUTIONS, VolumeUNetEncoder
from nnunet_fm.encoders.key_format import Converted, KeyFormat
from nnunet_fm.encoders.registry import (
    register_architecture,
    register_cards,
    register_key_format,
)
from nnunet_fm.encoders.weight_card import WeightCard

STAGES = 5
# `rec_head` of the pretraining and `pred_head` of a fine-tuning, or a decoder saved by itself
DECODERS = ("rec_head.", "pred_head.", "decoder", "out_conv", "ds_out_conv", "upsample", "head")


def amaes(
    taps: Sequence[int] | None = None, width: int = 32, image_orientation: str | None = None
) -> VolumeUNetEncoder:
    """Build the encoder.

    Args:
        taps: stages whose maps are returned; all if None.
        width: channels at full resolution: 32 for B, 64 for XL.
        image_orientation: of the images that it is used on, e.g. `LPS`, to turn them to the RAS of
            the pretraining; None leaves them as they are.
    """
    widths = [width * 2**n for n in range(STAGES)]
    body = PlainConvEncoder(
        1,
        STAGES,
        widths,
        kernel_sizes=3,
        strides=[1, 2, 2, 2, 2],
        n_conv_per_stage=2,
        pool="max",
        **CONVOLUTIONS,
    )
    return VolumeUNetEncoder(body, taps, widths, 128, "xyz", ZERO_TO_ONE, "RAS", image_orientation)


_AMAES = re.compile(
    r"(?:in_conv|encoder_conv(?P<stage>\d))\.conv(?P<conv>\d)\.(?P<part>conv|norm)\.(?P<name>\w+)"
)


def from_amaes(state: Mapping[str, Tensor]) -> Converted:
    """Convert AMAES' names (`in_conv.conv1.conv`, `encoder_conv1.conv1.norm`).

    dynamic-network-architectures holds every tensor under two names.
    """
    result = Converted({})
    for key, value in state.items():
        match = _AMAES.fullmatch(key)
        if match is None and key.startswith(DECODERS):
            result.dropped[key] = "decoder"
        elif match is None:
            result.tensors[key] = value  # the loader reports it as unexpected
        else:
            stage, place = match["stage"] or "0", {"conv": "0", "norm": "1"}[match["part"]]
            stem = (
                f"body.stages.{stage}.{1 if match['stage'] else 0}.convs.{int(match['conv']) - 1}"
            )
            for part in (match["part"], f"all_modules.{place}"):
                result.tensors[f"{stem}.{part}.{match['name']}"] = value
    return result


def _is_amaes(state: Mapping[str, Tensor]) -> bool:
    return "in_conv.conv1.conv.weight" in state


def _card(size: str, file: str) -> WeightCard:
    return WeightCard(
        name=f"amaes_{size}.brains45k",
        architecture=f"amaes_{size}",
        licence="not stated in the repository",
        source=f"{file} of https://zenodo.org/records/13604788",
        files=(f"{Path(file).stem}*",),
        by_files_alone=True,  # FOMO25's baselines have the same network, other data and licence
        pretrained_on=("BRAINS-45K, see its paper",),
        citation="arXiv:2408.00640",
        spatial_dims=3,
    )


register_architecture("amaes_unetb", partial(amaes, width=32))
register_architecture("amaes_unetxl", partial(amaes, width=64))
register_key_format(KeyFormat("AMAES", _is_amaes, from_amaes))
register_cards(
    _card("unetb", "unet_b_lw_dec_fullaug.pth"), _card("unetxl", "unet_xl_lw_dec_fullaug.pth")
)
