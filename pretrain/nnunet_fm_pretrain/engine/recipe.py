"""What every pretraining recipe holds, as strict data. A method's recipe adds its own parts."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, field_serializer, model_validator

from nnunet_fm.internal.config import Count, Part, Positive, Seed, Text
from nnunet_fm.internal.errors import InputError

Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0)]
Range = tuple[float, float]


def check_range(name: str, value: Range) -> None:
    """Raise ValueError unless a range is positive and ordered."""
    low, high = value
    if not 0 < low <= high:
        raise InputError(f"{name} is ({low:g}, {high:g}); allowed: 0 < low <= high")


def check_family(architecture: str, *families: str) -> None:
    """Raise ValueError unless an architecture's name begins with one of these, e.g. `volta3d_`."""
    if not architecture.startswith(families):
        allowed = " or ".join(f"{family}*" for family in families)
        raise InputError(
            f"encoder.architecture {architecture}; allowed: a {allowed} name of `encoders list`"
        )


class EncoderRecipe(Part):
    """The network that is trained.

    Attributes:
        architecture: a name of `nnunet-fm encoders list` that the method can train.
        init: `scratch`, or a weight file that the strict loader reads (a warm start), here or on
            the Hub with its commit (`hf://OWNER/NAME@COMMIT/FILE`).
        card: weight card of that file, where the file alone does not identify it.
    """

    architecture: Text
    init: Text = "scratch"
    card: Text | None = None


class ObjectiveRecipe(Part):
    """The method and its settings; `method` selects the recipe class that reads the file."""

    method: Text


class OptimiserSettings(Part):
    """AdamW and its schedule, without the length of the run.

    Attributes:
        peak_lr: learning rate after the warm-up.
        lr_scaling: `none`, or `sqrt_1024` (times 4 sqrt(batch / 1024), as DINOv3's code does).
        final_lr: learning rate at the last step, reached by half a cosine.
        warmup_steps: length of the linear warm-up from 0.
        weight_decay: constant; not applied to biases, norms and LayerScale.
        token_decay: whether the weight decay is applied to the CLS, register and mask tokens too,
            as in DINOv3's code.
        betas: of AdamW.
        layer_decay: factor on the learning rate from one block to the block below it.
        patch_embed_lr: further factor on the patch embedding.
        clip: largest gradient norm of each trained module, separately; None: no clipping.
    """

    peak_lr: Rate = 1e-4
    lr_scaling: Literal["none", "sqrt_1024"] = "none"
    final_lr: Rate = 1e-6
    warmup_steps: Count = 10_000
    weight_decay: Rate = 0.04
    token_decay: bool = False
    betas: tuple[Share, Share] = (0.9, 0.999)
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    patch_embed_lr: Rate = 0.2
    clip: Annotated[float, Field(gt=0)] | None = 3.0


class OptimiserRecipe(OptimiserSettings):
    """The optimiser of every phase, and the length of the run.

    Attributes:
        steps: optimiser steps of the whole run.
        batch_size: samples per step, over all devices.
    """

    steps: Positive
    batch_size: Positive

    @model_validator(mode="after")
    def _warmup_fits(self) -> "OptimiserRecipe":
        if self.warmup_steps > self.steps:
            raise InputError(
                f"warmup_steps is {self.warmup_steps}; allowed: at most steps ({self.steps})"
            )
        return self


class RunRecipe(Part):
    """How the run is carried out. Nothing here changes what is learned, beyond rounding.

    Attributes:
        precision: Fabric's: `bf16-mixed` or `32-true`.
        checkpointing: recompute each block's activations in the backward pass.
        compile: compile each block (GPU only).
        workers: processes that prepare batches, per device.
        threads: of the network's arithmetic on a CPU; another number changes the order of sums.
        save_every: steps between checkpoints.
        keep: checkpoints that stay on disk.
        log_every: steps between lines of the log.
        max_skipped_steps: steps without a finite gradient after which the run stops.
    """

    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed"
    checkpointing: bool = True
    compile: bool = True
    workers: Count = 8
    threads: Positive = 2
    save_every: Positive = 2500
    keep: Positive = 3
    log_every: Positive = 10
    max_skipped_steps: Count = Field(
        default=20, validation_alias=AliasChoices("max_skipped_steps", "most_bad_steps")
    )


class Recipe(Part):
    """One pretraining run.

    Attributes:
        seed: of the initial weights, the order of samples and all augmentation.
        encoder: the network that is trained and exported.
        objective: the method and its settings.
        optimiser: optimiser and schedule of every phase.
        optimisers: settings that differ in single phases, by name of the phase.
        run: devices, checkpoints and log.
    """

    seed: Seed = 0
    encoder: EncoderRecipe
    objective: ObjectiveRecipe
    optimiser: OptimiserRecipe
    optimisers: dict[str, OptimiserSettings] = Field(default_factory=dict)
    run: RunRecipe = RunRecipe()

    @model_validator(mode="after")
    def _phases_are_valid(self) -> "Recipe":
        for phase in self.optimisers:
            self.optimiser_of(phase)
        return self

    @field_serializer("optimisers")
    def _only_changed_keys(self, value: dict[str, OptimiserSettings]) -> dict[str, Any]:
        return {k: v.model_dump(mode="json", exclude_unset=True) for k, v in value.items()}

    def optimiser_of(self, phase: str) -> OptimiserRecipe:
        """Return the optimiser of a phase: `optimiser` with the changes of `optimisers[phase]`."""
        changes = self.optimisers.get(phase)
        if changes is None:
            return self.optimiser
        merged = self.optimiser.model_dump() | changes.model_dump(exclude_unset=True)
        return OptimiserRecipe.model_validate(merged)


def recipe_differences(one: Recipe, other: Recipe) -> list[str]:
    """List the keys in which two recipes differ, with both values.

    The part `run` is skipped, as it changes no result.
    """
    first = dict(_flatten(one.model_dump(exclude={"run"}, mode="json")))
    second = dict(_flatten(other.model_dump(exclude={"run"}, mode="json")))
    return [
        f"{key}: {first.get(key)} and {second.get(key)}"
        for key in sorted(first | second)
        if first.get(key) != second.get(key)
    ]


def _flatten(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _flatten(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, content
