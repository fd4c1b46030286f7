"""What fits the models of a task: on cached features, or on volumes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from nnunet_fm.heads.models import Model, fit, model_names
from nnunet_fm.heads.models.base import Inputs
from nnunet_fm.heads.targets import Targets
from nnunet_fm.heads.task import Task


@dataclass(frozen=True)
class TrainingCases:
    """The cases that a model is fitted on.

    Attributes:
        task: the task.
        x: features, one row per case; for fine-tuning, the keys of the volumes.
        targets: of the cases.
        subjects: subject of each case.
    """

    task: Task
    x: Inputs
    targets: Targets
    subjects: Sequence[str]


class Fitter(ABC):
    """Names and fits the models of a task.

    Attributes:
        threads: of torch's arithmetic on the CPU.
    """

    threads: int

    @abstractmethod
    def names(self, task: Task, smallest: int) -> list[str]:
        """List the models, given the number of cases of the smallest training side."""

    @abstractmethod
    def fit(self, name: str, cases: TrainingCases, seed: int) -> Model:
        """Fit a model.

        Raises:
            FloatingPointError: the loss is not finite.
        """


class HeadFitter(Fitter):
    """Heads on vectors, see `nnunet_fm.heads.models`."""

    threads = 1  # the products are small, more threads are slower

    def names(self, task: Task, smallest: int) -> list[str]:
        """List the heads of the task."""
        return model_names(task, smallest)

    def fit(self, name: str, cases: TrainingCases, seed: int) -> Model:
        """Fit a head."""
        return fit(name, cases.task, cases.x, cases.targets, seed)
