"""What predictions are worth: the metrics of each kind of task, as functions of weighted cases."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer

from nnunet_fm.evaluation.classification import weighted_macro_auc
from nnunet_fm.evaluation.intervals import Bootstrap, Statistic, Weights
from nnunet_fm.evaluation.survival import weighted_concordance

Output = Float[np.ndarray, "n ..."]
Metric = Callable[[Output, Weights], Float[np.ndarray, " b"]]


@dataclass(frozen=True)
class TrueTargets:
    """The truth of the tested cases.

    Attributes:
        kind: of the task.
        values: class number, number or time.
        events: survival: whether the time ends with one.
        subjects: number of the subject that each case is of.
        fold: whose model predicted the case; areas and concordances compare within a fold only, as
            two models' scores have no common scale.
    """

    kind: str
    values: Float[np.ndarray, " n"]
    events: Bool[np.ndarray, " n"]
    subjects: Integer[np.ndarray, " n"]
    fold: Integer[np.ndarray, " n"]

    def strata(self) -> Integer[np.ndarray, " n"] | None:
        """What resamples keep the shares of: the class or the event. Not the fold: few of a class lie in each."""
        if self.kind == "regression":
            return None
        return (self.values if self.kind == "classification" else self.events).astype(int)

    @property
    def one_case_each(self) -> bool:
        """Whether no subject has several cases."""
        return len(set(self.subjects.tolist())) == len(self.subjects)

    def bootstrap(self, resamples: int) -> Bootstrap:
        """Of the tested subjects."""
        return Bootstrap(self.subjects, self.strata(), resamples)

    def metrics(self, ranks: bool = True) -> dict[str, Metric]:
        """Metrics by name, each a function of the outputs of all cases and of weights.

        Args:
            ranks: whether the outputs can be ranked; the votes of neighbours cannot.
        """
        if self.kind == "classification":
            found: dict[str, Metric] = {"AUC": self._area} if ranks else {}
            return {**found, "accuracy": self._accuracy}
        if self.kind == "survival":
            return {
                "C-index": lambda o, w: weighted_concordance(
                    self.values, self.events, o, w, self.fold
                )
            }
        return {"MAE": self._mean_absolute, "RMSE": self._root_mean_square, "R2": self._explained}

    def _area(self, output: Output, weights: Weights) -> Float[np.ndarray, " b"]:
        return weighted_macro_auc(self.values.astype(int), output, weights, self.fold)

    def _accuracy(self, output: Output, weights: Weights) -> Float[np.ndarray, " b"]:
        return weights @ (output.argmax(1) == self.values) / weights.sum(1)

    def _mean_absolute(self, output: Output, weights: Weights) -> Float[np.ndarray, " b"]:
        return weights @ np.abs(output - self.values) / weights.sum(1)

    def _mean_square(self, output: Output, weights: Weights) -> Float[np.ndarray, " b"]:
        return weights @ np.square(output - self.values) / weights.sum(1)

    def _root_mean_square(self, output: Output, weights: Weights) -> Float[np.ndarray, " b"]:
        return np.sqrt(self._mean_square(output, weights))

    def _explained(self, output: Output, weights: Weights) -> Float[np.ndarray, " b"]:
        mean = weights @ self.values / weights.sum(1)
        variance = weights @ np.square(self.values) / weights.sum(1) - mean**2
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(variance > 0, 1 - self._mean_square(output, weights) / variance, np.nan)


def difference(first: Statistic, second: Statistic) -> Statistic:
    """The second minus the first, of the same cases."""
    return lambda weights: second(weights) - first(weights)
