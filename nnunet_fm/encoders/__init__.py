"""Encoders: one adapter a file behind one contract, weight cards, and the strict loader."""

from nnunet_fm.encoders.cards import CARDS, get_card
from nnunet_fm.encoders.contract import Encoder, FeatureInfo, InputSpec
from nnunet_fm.encoders.loading.load import load_encoder
from nnunet_fm.encoders.loading.load_report import LoadReport, tensors_sha256
from nnunet_fm.encoders.loading.read import CheckpointError
from nnunet_fm.encoders.registry import (
    ARCHITECTURES,
    build_encoder,
    random_state,
    register_architecture,
)
from nnunet_fm.encoders.weight_card import WeightCard

__all__ = [
    "ARCHITECTURES",
    "CARDS",
    "CheckpointError",
    "Encoder",
    "FeatureInfo",
    "InputSpec",
    "LoadReport",
    "WeightCard",
    "build_encoder",
    "get_card",
    "load_encoder",
    "random_state",
    "register_architecture",
    "tensors_sha256",
]
