"""What every model of feature vectors has in common."""

from abc import ABC, abstractmethod

import numpy as np
from jaxtyping import Float, Shaped

Vectors = Float[np.ndarray, "n d"]
Inputs = Shaped[np.ndarray, " n *rest"]  # vectors, or keys of volumes
Output = Float[np.ndarray, "n ..."]


class Model(ABC):
    """A model fitted on the training cases."""

    @abstractmethod
    def predict(self, x: Inputs) -> Output:
        """Predict one row per case.

        Returns:
            Classification: probabilities of the classes (kNN: 1 for the predicted class).
            Regression: values in the units of the target. Survival: risks.
        """
