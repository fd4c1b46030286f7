"""Task metrics as functions of weighted cases."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer

from nnunet_fm.evaluation.classification import weighted_macro_auc
from nnunet_fm.evaluation.intervals import Bootstrap, Weights
from nnunet_fm.evaluation.survival import weighted_concordance

Output = Float[np.ndarray, "n ..."]
PerResample = Float[np.ndarray, " b"]
MetricFunction = Callable[[Output, Weights], PerResample]


@dataclass(frozen=True)
class TrueTargets:
    """The targets of the tested cases.

    Attributes:
        kind: kind of the task.
        values: class number, number or time of each case.
        events: survival: whether the time ends with an event.
        subjects: number of the subject of each case.
        fold: fold whose model predicted the case. AUC and C-index compare cases only within a fold,
            because the scores of two models have no common scale.
    """

    kind: str
    values: Float[np.ndarray, " n"]
    events: Bool[np.ndarray, " n"]
    subjects: Integer[np.ndarray, " n"]
    fold: Integer[np.ndarray, " n"]

    def strata(self) -> Integer[np.ndarray, " n"] | None:
        """Return the stratum of each case for resampling: its class or event; None for regression.

        Folds are no strata: a fold may hold few cases of a class.
        """
        if self.kind == "regression":
            return None
        return (self.values if self.kind == "classification" else self.events).astype(int)

    def same_as(self, other: "TrueTargets") -> bool:
        """Return whether targets, events, subjects and folds are those of `other`."""
        return all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("values", "events", "subjects", "fold")
        )

    @property
    def n_subjects(self) -> int:
        """Number of subjects, which may have several cases each."""
        return len(set(self.subjects.tolist()))

    @property
    def one_case_each(self) -> bool:
        """Whether no subject has several cases."""
        return self.n_subjects == len(self.subjects)

    @property
    def first_cases(self) -> Integer[np.ndarray, " s"]:
        """Numbers of the first case of each subject, for statistics that need independent cases."""
        return np.sort(np.unique(self.subjects, return_index=True)[1])

    def bootstrap(self, resamples: int) -> Bootstrap:
        """Resample the tested subjects within their strata."""
        return Bootstrap(self.subjects, self.strata(), resamples)

    def metrics(self, ranks: bool = True) -> dict[str, MetricFunction]:
        """Return the metrics by name, functions of the outputs of all cases and of weights.

        Args:
            ranks: whether the outputs can be ranked; the votes of neighbours cannot.
        """
        if self.kind == "classification":
            if not ranks:
                return {"accuracy": self._accuracy}
            return {"AUC": self._auc, "accuracy": self._accuracy}
        if self.kind == "survival":
            return {"C-index": self._c_index}
        return {"MAE": self._mae, "RMSE": self._rmse, "R2": self._r2}

    def _auc(self, output: Output, weights: Weights) -> PerResample:
        return weighted_macro_auc(self.values.astype(int), output, weights, self.fold)

    def _accuracy(self, output: Output, weights: Weights) -> PerResample:
        return weights @ (output.argmax(1) == self.values) / weights.sum(1)

    def _c_index(self, output: Output, weights: Weights) -> PerResample:
        return weighted_concordance(self.values, self.events, output, weights, self.fold)

    def _mae(self, output: Output, weights: Weights) -> PerResample:
        return weights @ np.abs(output - self.values) / weights.sum(1)

    def _mse(self, output: Output, weights: Weights) -> PerResample:
        return weights @ np.square(output - self.values) / weights.sum(1)

    def _rmse(self, output: Output, weights: Weights) -> PerResample:
        return np.sqrt(self._mse(output, weights))

    def _r2(self, output: Output, weights: Weights) -> PerResample:
        centred = self.values - self.values.mean()  # so that a constant target has no variance
        mean = weights @ centred / weights.sum(1)
        variance = weights @ np.square(centred) / weights.sum(1) - mean**2
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(variance > 0, 1 - self._mse(output, weights) / variance, np.nan)
