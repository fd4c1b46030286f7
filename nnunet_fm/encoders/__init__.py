"""Encoders: one file per family behind one contract, weight cards, and the strict loader."""

from nnunet_fm.encoders.cards import (
    bundled_weights,
    get_card,
    intensity_of,
    orientation_of,
    required_orientation,
    takes_ras,
)
from nnunet_fm.encoders.contract import Encoder, FeatureInfo, InputSpec
from nnunet_fm.encoders.key_format import Converted, KeyFormat
from nnunet_fm.encoders.loading.load import load_encoder
from nnunet_fm.encoders.loading.load_report import LoadReport, tensors_sha256
from nnunet_fm.encoders.loading.read import CheckpointError
from nnunet_fm.encoders.loading.weight_source import EncoderSource
from nnunet_fm.encoders.random_weights import random_state
from nnunet_fm.encoders.registry import (
    ARCHITECTURES,
    CARDS,
    build_encoder,
    discover,
    register_architecture,
    register_cards,
    register_key_format,
)
from nnunet_fm.encoders.weight_card import WeightCard

__all__ = [
    "ARCHITECTURES",
    "CARDS",
    "CheckpointError",
    "Converted",
    "Encoder",
    "EncoderSource",
    "FeatureInfo",
    "InputSpec",
    "KeyFormat",
    "LoadReport",
    "WeightCard",
    "build_encoder",
    "bundled_weights",
    "get_card",
    "intensity_of",
    "load_encoder",
    "orientation_of",
    "random_state",
    "register_architecture",
    "register_cards",
    "register_key_format",
    "required_orientation",
    "takes_ras",
    "tensors_sha256",
]

discover()
