"""Alias: trainers that users derived from the catalogue's base classes import this module."""

from nnunet_fm.nnunet.trainer import (
    FrozenEncoder25DTrainer,
    FrozenEncoderTrainer,
    MeasuredMixin,
    SafeContinueMixin,
    SubsetMixin,
    SubsetTrainer,
)

__all__ = [
    "FrozenEncoder25DTrainer",
    "FrozenEncoderTrainer",
    "MeasuredMixin",
    "SafeContinueMixin",
    "SubsetMixin",
    "SubsetTrainer",
]
