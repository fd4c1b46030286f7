"""What every model of feature vectors has in common."""

from abc import ABC, abstractmethod

import numpy as np
from jaxtyping import Float

Vectors = Float[np.ndarray, "n d"]
Output = Float[np.ndarray, "n ..."]


class Model(ABC):
    """A model fitted on the vectors of the training cases."""

    @abstractmethod
    def predict(self, x: Vectors) -> Output:
        """Predict one row per vector.

        Returns:
            Classification: probabilities of the classes (kNN: 1 for the predicted class).
            Regression: values in the units of the target. Survival: risks.
        """
