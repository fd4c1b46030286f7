"""Decoders from tapped features (and the image, for those that look at it) to class logits."""

from nnunet_fm.network.decoders.base import Decoder
from nnunet_fm.network.decoders.primus import LightPrimusDecoder, PrimusDecoder
from nnunet_fm.network.decoders.pyramid import PyramidDecoder
from nnunet_fm.network.decoders.volumes import UnetrDecoder, VolumePrimusDecoder

DECODERS: dict[str, type[Decoder]] = {
    "primus": PrimusDecoder,
    "light": LightPrimusDecoder,
    "unetr": UnetrDecoder,
    "primus3d": VolumePrimusDecoder,
    "pyramid": PyramidDecoder,
}

__all__ = [
    "DECODERS",
    "Decoder",
    "LightPrimusDecoder",
    "PrimusDecoder",
    "PyramidDecoder",
    "UnetrDecoder",
    "VolumePrimusDecoder",
]
