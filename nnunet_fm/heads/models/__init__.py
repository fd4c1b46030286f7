"""Models of feature vectors: MLP head, linear model, nearest neighbours and trivial baseline.

To add a model, write a file here with a subclass of `Model`, and add its name to `MODELS` and to
`Task.models`.
"""

from collections.abc import Callable

from nnunet_fm.heads.models.base import Model, Output, Vectors
from nnunet_fm.heads.models.knn import KnnModel
from nnunet_fm.heads.models.linear import fit_linear
from nnunet_fm.heads.models.mlp import MlpModel
from nnunet_fm.heads.models.trivial import TrivialModel
from nnunet_fm.heads.targets import Targets
from nnunet_fm.heads.task import Task

__all__ = ["MODELS", "Model", "Output", "Vectors", "fit", "has_scores", "model_names"]

MODELS: dict[str, Callable[[Task, Vectors, Targets, int], Model]] = {
    "mlp": MlpModel,
    "linear": fit_linear,
    "trivial": TrivialModel,
}
KNN = "knn_"  # followed by the number of neighbours


def model_names(task: Task, smallest: int) -> list[str]:
    """List the models of a task, with a kNN model for each possible number of neighbours.

    Args:
        task: the task.
        smallest: number of training cases of the smallest training side. Larger numbers of
            neighbours are skipped.
    """
    names: list[str] = []
    for model in task.models:
        if model != "knn":
            names.append(model)
        elif task.kind == "classification":
            names += [f"{KNN}{k}" for k in task.neighbours if k <= smallest]
    return names


def has_scores(name: str) -> bool:
    """Return whether a model's outputs can be ranked; the votes of neighbours cannot."""
    return not name.startswith(KNN)


def fit(name: str, task: Task, x: Vectors, targets: Targets, seed: int) -> Model:
    """Fit a model on training cases.

    Args:
        name: `mlp`, `linear`, `trivial`, or `knn_K` with K neighbours.
        task: the task.
        x: vectors, one row per case.
        targets: targets of these cases.
        seed: seed of the MLP head; the other models are deterministic.

    Raises:
        FloatingPointError: the loss of the head is not finite.
    """
    if name.startswith(KNN):
        return KnnModel(int(name.removeprefix(KNN)), x, targets)
    return MODELS[name](task, x, targets, seed)
