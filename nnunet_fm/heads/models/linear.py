"""Linear models on standardised features: logistic, ridge and Cox regression."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nnunet_fm.heads.losses import cox_loss
from nnunet_fm.heads.models.base import Model, Output, Vectors
from nnunet_fm.heads.models.target_scale import target_scale
from nnunet_fm.heads.targets import Targets
from nnunet_fm.heads.task import Task

INVERSE_PENALTY = 0.01  # scikit-learn's C
RIDGE_PENALTIES = tuple(10.0**exponent for exponent in range(-2, 6))
COX_PENALTY = 0.01
COX_STEPS = 50


def fit_linear(task: Task, x: Vectors, targets: Targets, seed: int) -> Model:
    """Fit the linear model of a task's kind; deterministic, so `seed` is unused."""
    if task.kind == "classification":
        return LogisticModel(x, targets)
    if task.kind == "survival":
        return CoxModel(x, targets)
    return RidgeModel(task, x, targets)


class LogisticModel(Model):
    """Logistic regression with an L2 penalty."""

    def __init__(self, x: Vectors, targets: Targets) -> None:
        logistic = LogisticRegression(C=INVERSE_PENALTY, max_iter=2000)
        self._model = make_pipeline(StandardScaler(), logistic)
        self._model.fit(x, targets.values.astype(int))

    def predict(self, x: Vectors) -> Output:
        """Return the probabilities of the classes."""
        probabilities: np.ndarray = self._model.predict_proba(x)
        return probabilities


class RidgeModel(Model):
    """Ridge regression; the penalty is chosen by leave-one-out validation."""

    def __init__(self, task: Task, x: Vectors, targets: Targets) -> None:
        self._scale = target_scale(task, targets.values)
        self._model = make_pipeline(StandardScaler(), RidgeCV(RIDGE_PENALTIES))
        self._model.fit(x, self._scale.scale(targets.values))

    def predict(self, x: Vectors) -> Output:
        """Return values in the units of the target."""
        return self._scale.to_units(self._model.predict(x))


class CoxModel(Model):
    """Cox regression with an L2 penalty, fitted with L-BFGS."""

    def __init__(self, x: Vectors, targets: Targets) -> None:
        self._scaler = StandardScaler().fit(x)
        inputs = torch.from_numpy(self._scaler.transform(x)).double()
        times = torch.from_numpy(targets.values)
        events = torch.from_numpy(targets.events)
        weights = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([weights], max_iter=COX_STEPS, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            optimiser.zero_grad()
            loss = cox_loss(inputs @ weights, times, events) + COX_PENALTY * weights.square().sum()
            loss.backward()
            return loss

        optimiser.step(closure)  # type: ignore[no-untyped-call]
        self._weights = weights.detach().numpy()

    def predict(self, x: Vectors) -> Output:
        """Return log hazard ratios."""
        risks: np.ndarray = self._scaler.transform(x) @ self._weights
        return risks
