"""The head of the paper: LayerNorm, Linear, GELU, Linear, trained on cached vectors.

Source: BrainDINO, section 4.3.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from nnunet_fm.heads.losses import cox_loss, stroke_days_loss
from nnunet_fm.heads.models.base import Model, Output, Vectors
from nnunet_fm.heads.models.target_scale import target_scale
from nnunet_fm.heads.targets import Targets
from nnunet_fm.heads.task import HeadTraining, Task
from nnunet_fm.internal.errors import NonFiniteError

Outputs = Float[Tensor, "b o"]
Rows = Integer[Tensor, " b"]  # numbers of the training cases in a batch
Loss = Callable[[Outputs, Rows], Tensor]
Values = Float[Tensor, " n"]


class MlpModel(Model):
    """The head of the paper, trained for one task."""

    def __init__(self, task: Task, x: Vectors, targets: Targets, seed: int) -> None:
        self._kind = task.kind
        self._scaler = StandardScaler().fit(x) if task.head.standardise else None
        self._scale = None
        outputs = 1
        if task.kind == "classification":
            outputs = len(targets.classes)
            loss = partial(_class_loss, torch.from_numpy(targets.values).long())
        elif task.kind == "survival":
            times = torch.from_numpy(targets.values)
            loss = partial(_survival_loss, times, torch.from_numpy(targets.events))
        else:
            self._scale = target_scale(task, targets.values)
            values = torch.from_numpy(self._scale.scale(targets.values)).float()
            error = stroke_days_loss if task.loss == "stroke_days" else mse_loss
            loss = partial(_value_loss, values, error)
        self._head = train_head(self._inputs(x), outputs, loss, task.head, seed)

    def predict(self, x: Vectors) -> Output:
        """Return probabilities, values in the units of the target, or log hazard ratios."""
        with torch.inference_mode():
            outputs: Tensor = self._head(self._inputs(x))
        if self._kind == "classification":
            return outputs.softmax(1).numpy()
        if self._scale is None:
            return outputs[:, 0].numpy()
        return self._scale.to_units(outputs[:, 0].double().numpy())

    def _inputs(self, x: Vectors) -> Float[Tensor, "n d"]:
        scaled = np.asarray(x) if self._scaler is None else self._scaler.transform(x)
        return torch.from_numpy(scaled).float()


def _class_loss(labels: Integer[Tensor, " n"], outputs: Outputs, rows: Rows) -> Tensor:
    return cross_entropy(outputs, labels[rows])


def _survival_loss(
    times: Values, events: Bool[Tensor, " n"], outputs: Outputs, rows: Rows
) -> Tensor:
    return cox_loss(outputs[:, 0], times[rows], events[rows])


def _value_loss(
    values: Values, error: Callable[[Tensor, Tensor], Tensor], outputs: Outputs, rows: Rows
) -> Tensor:
    return error(outputs[:, 0], values[rows])


class Head(nn.Sequential):
    """LayerNorm, Linear, GELU, dropout, Linear.

    Args:
        width: length of the vectors.
        outputs: number of classes, or 1.
        hidden: width of the hidden layer.
        dropout: probability of dropout.
    """

    def __init__(self, width: int, outputs: int, hidden: int, dropout: float) -> None:
        super().__init__(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, outputs),
        )


def train_head(
    x: Float[Tensor, "n d"], outputs: int, loss: Loss, training: HeadTraining, seed: int
) -> Head:
    """Train a head and return it after the last step; no step is selected.

    Args:
        x: vectors of the training cases.
        outputs: number of outputs of the head.
        loss: function of the outputs for some cases and the numbers of these cases.
        training: see `HeadTraining`.
        seed: seed of initialisation, order and dropout.

    Returns:
        The head in evaluation mode.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = Head(x.shape[1], outputs, training.hidden, training.dropout).train()
        optimiser_class = torch.optim.Adam if training.optimiser == "adam" else torch.optim.AdamW
        optimiser = optimiser_class(
            head.parameters(),
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
            fused=True,
        )
        for rows in _batches(len(x), training):
            value = loss(head(x[rows]), rows)
            if not torch.isfinite(value):
                raise NonFiniteError(
                    "the loss of the head is not finite; look at its features and targets"
                )
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
    return head.eval()


def _batches(count: int, training: HeadTraining) -> Iterator[Rows]:
    """Yield the numbers of the cases of each step: shuffled epochs without incomplete batches."""
    size = min(training.batch_size or count, count)
    steps = training.steps_for(count)
    done = 0
    while done < steps:
        complete = torch.randperm(count)[: count // size * size]
        for rows in complete.split(size)[: steps - done]:
            yield rows
            done += 1
