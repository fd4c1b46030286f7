"""Settings of `nnunet-fm heads finetune`: those of the task, and of the training."""

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, model_validator

from nnunet_fm.heads.task import Task
from nnunet_fm.internal.config import Fraction, Part, Positive
from nnunet_fm.internal.errors import InputError


def _blocks(given: Any) -> int | str:
    if given == "all" or (isinstance(given, int) and not isinstance(given, bool) and given >= 0):
        return given
    raise InputError("allowed: a number of blocks from 0, or all")


def _share(given: float) -> float:
    if given == 0 or 0.05 <= given <= 0.5:
        return given
    raise InputError("allowed: 0, or 0.05 to 0.5")


class FineTuning(Part):
    """How an encoder is fine-tuned, with a linear head on its vector.

    The optimiser, rate, loss and number of epochs are those of VolTA-3D, section III-B; the paper
    does not give the others.

    Attributes:
        unfreeze: number of the last blocks that are trained; `all`: the whole encoder; 0: none.
        epochs: at most.
        batch_size: volumes per step.
        learning_rate: of AdamW, for encoder and head.
        weight_decay: of AdamW.
        balanced: classification: weight the classes in the loss by 1 / their number of cases (the
            paper: for AIBL).
        validation: share of the training subjects, 0.05 to 0.5 (rounded to 1/2, 1/3, 1/4, ...),
            that choose the epoch by their loss. They are never tested. 0: the last epoch is kept.
        patience: epochs without a lower validation loss after which the training ends.
    """

    unfreeze: Annotated[Any, AfterValidator(_blocks)] = 2
    epochs: Positive = 50
    batch_size: Positive = 8
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    balanced: bool = False
    validation: Annotated[float, AfterValidator(_share)] = 0.2
    patience: Positive = 10


class FineTuneTask(Task):
    """A task that an encoder is fine-tuned for.

    The keys of the heads on features (`head`, `models`, `neighbours`, `layer`) are unused, and no
    part of a run's identity.

    Attributes:
        ratios: see `Task`; by default all training subjects.
        seeds: see `Task`; 1 by default.
        finetune: how the encoder is trained.
    """

    no_identity: ClassVar[frozenset[str]] = Task.no_identity | {
        "head",
        "models",
        "neighbours",
        "layer",
    }

    ratios: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (1.0,)
    seeds: Positive = 1
    finetune: FineTuning = FineTuning()

    @model_validator(mode="after")
    def _check_finetuning(self) -> "FineTuneTask":
        if self.kind == "survival":
            raise InputError(
                "kind survival compares all subjects in each step; allowed for `heads finetune`: "
                "classification, regression. For survival: features extract, then heads run"
            )
        if self.protocol == "paper":
            raise InputError(
                "protocol=paper is BrainDINO's, for heads; the defaults of finetune are VolTA-3D's"
            )
        if self.fusion == "concat":
            raise InputError(
                "fusion=concat joins cached features; `heads finetune` trains on one volume per "
                "case. Type: nnunet-fm features extract, then heads run"
            )
        if self.finetune.balanced and self.kind != "classification":
            raise InputError("finetune.balanced is for classification")
        return self
