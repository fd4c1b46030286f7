"""Scales of regression targets: the scale a model is trained on, and the way back to its units."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from nnunet_fm.heads.task import Task

Values = Float[np.ndarray, " n"]


class TargetScale(ABC):
    """A scale of a target and its inverse."""

    @abstractmethod
    def scale(self, values: Values) -> Values:
        """Convert values in the units of the target to the scale of training."""

    @abstractmethod
    def to_units(self, predicted: Values) -> Values:
        """Convert predictions on the scale of training to the units of the target."""


@dataclass(frozen=True)
class Affine(TargetScale):
    """(value - centre) / spread."""

    centre: float = 0.0
    spread: float = 1.0

    def scale(self, values: Values) -> Values:
        """Subtract the centre and divide by the spread."""
        return (values - self.centre) / self.spread

    def to_units(self, predicted: Values) -> Values:
        """Multiply by the spread and add the centre."""
        return predicted * self.spread + self.centre


@dataclass(frozen=True)
class LogDays(TargetScale):
    """log(1 + days); predictions are limited to the range of the training cases.

    Attributes:
        highest: largest log(1 + days) of the training cases.
    """

    highest: float

    def scale(self, values: Values) -> Values:
        """Compute log(1 + days)."""
        return np.log1p(values)

    def to_units(self, predicted: Values) -> Values:
        """Compute days."""
        return np.expm1(np.clip(predicted, 0, self.highest))


def target_scale(task: Task, values: Values) -> TargetScale:
    """Choose the scale for a regression task from the targets of the training cases."""
    if task.loss == "stroke_days":
        return LogDays(float(np.log1p(values).max()))
    if not task.standardise_target:
        return Affine()
    return Affine(float(values.mean()), float(values.std()) or 1.0)
