"""Decoders from tapped features to class logits."""

from nnunet_fm.decoders.primus import DECODERS, LightPrimusDecoder, PrimusDecoder

__all__ = ["DECODERS", "LightPrimusDecoder", "PrimusDecoder"]
