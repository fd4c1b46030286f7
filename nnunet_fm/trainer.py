"""Alias: trainers that users derived from the catalogue's base classes import this module."""

from nnunet_fm.nnunet.checkpoint_mixins import StrictResumeMixin
from nnunet_fm.nnunet.record_mixin import RecordRunMixin
from nnunet_fm.nnunet.subset_mixin import SubsetMixin
from nnunet_fm.nnunet.subset_trainer import SubsetTrainer
from nnunet_fm.nnunet.trainer import FrozenEncoder25DTrainer, FrozenEncoderTrainer

MeasuredMixin = RecordRunMixin  # names of version 0.1
SafeContinueMixin = StrictResumeMixin

__all__ = [
    "FrozenEncoder25DTrainer",
    "FrozenEncoderTrainer",
    "MeasuredMixin",
    "RecordRunMixin",
    "SafeContinueMixin",
    "StrictResumeMixin",
    "SubsetMixin",
    "SubsetTrainer",
]
