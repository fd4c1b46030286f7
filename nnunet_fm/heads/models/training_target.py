"""What a network is trained on: its loss, and its predictions in the units of the target."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from nnunet_fm.heads.losses import cox_loss, stroke_days_loss
from nnunet_fm.heads.models.base import Output
from nnunet_fm.heads.models.target_scale import target_scale
from nnunet_fm.heads.targets import Targets
from nnunet_fm.heads.task import Task

Outputs = Float[Tensor, "b o"]
Rows = Integer[Tensor, " b"]  # numbers of the cases in a batch


class TrainingTarget:
    """Cross-entropy, squared error (or the stroke loss) on a scaled target, or Cox loss.

    Args:
        task: kind and loss.
        targets: of the cases.
        balanced: classification: weight each class by 1 / its number of cases.

    Attributes:
        outputs: of the network: number of classes, or 1.
    """

    def __init__(self, task: Task, targets: Targets, balanced: bool = False) -> None:
        self._kind = task.kind
        self._events = torch.from_numpy(targets.events)
        self._weights: Tensor | None = None
        self._error: Callable[[Tensor, Tensor], Tensor] = mse_loss
        self.outputs = 1
        values = targets.values
        if task.kind == "classification":
            self.outputs = len(targets.classes)
            self._values = torch.from_numpy(values).long()
            if balanced:
                counts = np.bincount(values.astype(int), minlength=self.outputs)
                self._weights = torch.from_numpy(1 / np.maximum(counts, 1)).float()
        elif task.kind == "survival":
            self._values = torch.from_numpy(values)
        else:
            self._scale = target_scale(task, values)
            self._values = torch.from_numpy(self._scale.scale(values)).float()
            if task.loss == "stroke_days":
                self._error = stroke_days_loss

    def loss(self, outputs: Outputs, rows: Rows) -> Float[Tensor, ""]:
        """Return the loss of some cases, given what the network says about them."""
        device = outputs.device
        values = self._values[rows].to(device)
        if self._kind == "classification":
            weights = None if self._weights is None else self._weights.to(device)
            return cross_entropy(outputs, values, weights)
        if self._kind == "survival":
            return cox_loss(outputs[:, 0], values, self._events[rows].to(device))
        return self._error(outputs[:, 0], values)

    def predict(self, outputs: Outputs) -> Output:
        """Return probabilities, values in the units of the target, or log hazard ratios."""
        outputs = outputs.cpu()
        if self._kind == "classification":
            return outputs.softmax(1).numpy()
        if self._kind == "survival":
            return outputs[:, 0].numpy()
        return self._scale.to_units(outputs[:, 0].double().numpy())
