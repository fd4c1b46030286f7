"""Models on vectors: the paper's head, a linear one, neighbours, the trivial answer."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import cross_entropy, mse_loss

from nnunet_fm.heads.knn import knn_predict
from nnunet_fm.heads.losses import cox_loss, stroke_days_loss
from nnunet_fm.heads.mlp import train_head
from nnunet_fm.heads.targets import Targets
from nnunet_fm.heads.task import Task

Vectors = Float[np.ndarray, "n d"]
Predict = Callable[[Vectors], Float[np.ndarray, "n ..."]]
ALPHAS = tuple(10.0**e for e in range(-2, 6))
KNN = "knn_"
PENALTY, COX_PENALTY, COX_STEPS = 0.01, 0.01, 50


def models_of(task: Task, smallest: int) -> list[str]:
    """Names of the models of a task, kNN once for each number of neighbours that `smallest` training cases allow."""
    found: list[str] = []
    for model in task.models:
        if model != "knn":
            found.append(model)
        elif task.kind == "classification":
            found += [f"{KNN}{k}" for k in task.neighbours if k <= smallest]
    return found


def has_scores(model: str) -> bool:
    """Whether a model's outputs can be ranked; the votes of neighbours cannot."""
    return not model.startswith(KNN)


def fit(model: str, task: Task, x: Vectors, targets: Targets, seed: int) -> Predict:
    """Train on some cases.

    Args:
        model: `mlp`, `linear`, `trivial` (class shares, the mean, or one risk for all), or `knn_K`.
        task: what is predicted.
        x: vectors, a row per case.
        targets: of these cases.
        seed: of the head.

    Returns:
        A function of vectors: probabilities of the classes (kNN: 1 for the predicted one), values
        in the target's units, or risks.

    Raises:
        FloatingPointError: the head does not train.
    """
    if model.startswith(KNN):
        return _knn(int(model.removeprefix(KNN)), x, targets)
    return {"mlp": _mlp, "linear": _linear, "trivial": _trivial}[model](task, x, targets, seed)


def _knn(k: int, x: Vectors, targets: Targets) -> Predict:
    labels, one_hot = targets.values.astype(int), np.eye(len(targets.classes))
    return lambda other: one_hot[knn_predict(x, labels, other, k)]


def _trivial(task: Task, x: Vectors, targets: Targets, seed: int) -> Predict:
    if task.kind == "classification":
        answer = np.bincount(targets.values.astype(int), minlength=len(targets.classes)) / len(
            targets.values
        )
    else:
        answer = np.array(targets.values.mean() if task.kind == "regression" else 0.0)
    return lambda other: np.broadcast_to(answer, (len(other), *answer.shape))


def _mlp(task: Task, x: Vectors, targets: Targets, seed: int) -> Predict:
    scale = StandardScaler().fit(x).transform if task.head.standardise else np.asarray
    inputs = torch.from_numpy(scale(x)).float()

    def outputs_of(head: torch.nn.Module) -> Callable[[Vectors], torch.Tensor]:
        return lambda other: _evaluated(head, scale(other))

    if task.kind == "classification":
        labels = torch.from_numpy(targets.values).long()
        count = len(targets.classes)
        evaluate = outputs_of(
            train_head(inputs, count, lambda o, r: cross_entropy(o, labels[r]), task.head, seed)
        )
        return lambda other: evaluate(other).softmax(1).numpy()
    if task.kind == "survival":
        times, events = torch.from_numpy(targets.values), torch.from_numpy(targets.events)
        evaluate = outputs_of(
            train_head(
                inputs, 1, lambda o, r: cox_loss(o[:, 0], times[r], events[r]), task.head, seed
            )
        )
        return lambda other: evaluate(other)[:, 0].numpy()
    scaled, back = _scaled(task, targets.values)
    wanted = torch.from_numpy(scaled).float()
    loss = stroke_days_loss if task.loss == "stroke_days" else mse_loss
    evaluate = outputs_of(
        train_head(inputs, 1, lambda o, r: loss(o[:, 0], wanted[r]), task.head, seed)
    )
    return lambda other: back(evaluate(other)[:, 0].double().numpy())


def _linear(task: Task, x: Vectors, targets: Targets, seed: int) -> Predict:
    if task.kind == "classification":
        logistic = LogisticRegression(C=PENALTY, max_iter=2000)
        model = make_pipeline(StandardScaler(), logistic).fit(x, targets.values.astype(int))
        return lambda other: model.predict_proba(other)
    if task.kind == "survival":
        return _linear_cox(x, targets)
    scaled, back = _scaled(task, targets.values)
    ridge = make_pipeline(StandardScaler(), RidgeCV(ALPHAS)).fit(x, scaled)
    return lambda other: back(ridge.predict(other))


def _linear_cox(x: Vectors, targets: Targets) -> Predict:
    scaler = StandardScaler().fit(x)
    inputs = torch.from_numpy(scaler.transform(x)).double()
    times, events = torch.from_numpy(targets.values), torch.from_numpy(targets.events)
    weights = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=COX_STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = cox_loss(inputs @ weights, times, events) + COX_PENALTY * weights.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    found = weights.detach().numpy()
    return lambda other: scaler.transform(other) @ found


def _scaled(task: Task, values: Float[np.ndarray, " n"]) -> tuple[Float[np.ndarray, " n"], Predict]:
    """Target of the training subjects as the head sees it, and the way back to its own units.

    `stroke_days` is log(1 + days), clamped on the way back to what was seen; everything else is
    standardised.
    """
    if task.loss == "stroke_days":
        highest = float(np.log1p(values).max())
        return np.log1p(values), lambda predicted: np.expm1(np.clip(predicted, 0, highest))
    if not task.standardise_target:
        return values, lambda predicted: predicted
    centre, spread = float(values.mean()), float(values.std()) or 1.0
    return (values - centre) / spread, lambda predicted: predicted * spread + centre


@torch.inference_mode()
def _evaluated(head: torch.nn.Module, x: Vectors) -> torch.Tensor:
    result: torch.Tensor = head(torch.from_numpy(x).float())
    return result
