"""Decoders from tapped features (and the image, for those that use it) to class logits."""

from nnunet_fm.network.decoders.base import Decoder
from nnunet_fm.network.decoders.detail import (
    DetailDecoder,
    PyramidDetailDecoder,
    SlicePyramidDetailDecoder,
    VolumeDetailDecoder,
)
from nnunet_fm.network.decoders.primus import LightPrimusDecoder, PrimusDecoder
from nnunet_fm.network.decoders.pyramid import PyramidDecoder, SlicePyramidDecoder
from nnunet_fm.network.decoders.registry import (
    DECODERS,
    discover,
    find_decoder,
    register_decoder,
)
from nnunet_fm.network.decoders.volumes import UnetrDecoder, VolumePrimusDecoder

__all__ = [
    "DECODERS",
    "Decoder",
    "DetailDecoder",
    "LightPrimusDecoder",
    "PrimusDecoder",
    "PyramidDecoder",
    "PyramidDetailDecoder",
    "SlicePyramidDecoder",
    "SlicePyramidDetailDecoder",
    "UnetrDecoder",
    "VolumeDetailDecoder",
    "VolumePrimusDecoder",
    "find_decoder",
    "register_decoder",
]

register_decoder("primus", PrimusDecoder)
register_decoder("light", LightPrimusDecoder)
register_decoder("unetr", UnetrDecoder)
register_decoder("primus3d", VolumePrimusDecoder)
register_decoder("pyramid", PyramidDecoder)
register_decoder("pyramid", SlicePyramidDecoder)
register_decoder("detail", DetailDecoder)
register_decoder("detail", VolumeDetailDecoder)
register_decoder("detail", PyramidDetailDecoder)
register_decoder("detail", SlicePyramidDetailDecoder)
discover()
