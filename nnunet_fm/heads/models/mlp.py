"""The head of the paper: LayerNorm, Linear, GELU, Linear, trained on cached vectors.

Source: BrainDINO, section 4.3.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from nnunet_fm.heads.models.base import Model, Output, Vectors
from nnunet_fm.heads.models.training_target import Outputs, Rows, TrainingTarget
from nnunet_fm.heads.targets import Targets
from nnunet_fm.heads.task import HeadTraining, Task
from nnunet_fm.internal.errors import NonFiniteError

Loss = Callable[[Outputs, Rows], Tensor]


class MlpModel(Model):
    """The head of the paper, trained for one task."""

    def __init__(self, task: Task, x: Vectors, targets: Targets, seed: int) -> None:
        self._scaler = StandardScaler().fit(x) if task.head.standardise else None
        self._target = TrainingTarget(task, targets)
        self._head = train_head(
            self._inputs(x), self._target.outputs, self._target.loss, task.head, seed
        )

    def predict(self, x: Vectors) -> Output:
        """Return probabilities, values in the units of the target, or log hazard ratios."""
        with torch.inference_mode():
            return self._target.predict(self._head(self._inputs(x)))

    def _inputs(self, x: Vectors) -> Float[Tensor, "n d"]:
        scaled = np.asarray(x) if self._scaler is None else self._scaler.transform(x)
        return torch.from_numpy(scaled).float()


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
