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
        balanced: classification: weight each case by 1 / the number of cases of its class, 1 on
            average.

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
                weights = len(values) / ((counts > 0).sum() * np.maximum(counts, 1))
                self._weights = torch.from_numpy(weights[values.astype(int)]).float()
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
            if self._weights is None:
                return cross_entropy(outputs, values)
            # torch's own weights are divided by those of the batch: a batch of one has none
            losses = cross_entropy(outputs, values, reduction="none")
            return (self._weights[rows].to(device) * losses).mean()
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
