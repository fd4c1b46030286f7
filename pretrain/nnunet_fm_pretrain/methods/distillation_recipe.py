"""Settings of the methods in which a student learns from its own moving average."""

from typing import Annotated

from pydantic import Field

from nnunet_fm.internal.config import Count, Part, Positive
from nnunet_fm_pretrain.engine.recipe import ObjectiveRecipe, Share

Temperature = Annotated[float, Field(gt=0)]


class HeadRecipe(Part):
    """Three-layer projection head.

    Attributes:
        hidden: width of the two hidden layers.
        bottleneck: width of the normalised output, in front of the prototypes.
        prototypes: how many there are (K in the papers).
        normalised: whether every prototype has length 1.
    """

    hidden: Positive = 2048
    bottleneck: Positive = 256
    prototypes: Positive = 65536
    normalised: bool = False


class DistillationRecipe(ObjectiveRecipe):
    """What student and teacher have in common in every method.

    Attributes:
        centre_momentum: of the moving average of the teacher's logits.
        student_temperature: constant.
        teacher_temperature: first and last value.
        teacher_temperature_steps: length of the linear change between them.
        freeze_last_layer_steps: steps at the start in which the prototypes are not trained.
        momentum: first and last value of the teacher's (cosine).
    """

    centre_momentum: Share = 0.9
    student_temperature: Temperature = 0.1
    teacher_temperature: tuple[Temperature, Temperature] = (0.04, 0.07)
    teacher_temperature_steps: Count = 100_000
    freeze_last_layer_steps: Count = 1250
    momentum: tuple[Share, Share] = (0.994, 0.994)
