"""Recipes: everything that decides a pretraining run, as strict data. Comments in the shipped YAML files say why."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nnunet_fm.internal.config import Part
from nnunet_fm.internal.errors import InputError

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0)]
Temperature = Annotated[float, Field(gt=0)]
Range = tuple[float, float]


def _check_range(name: str, given: Range) -> None:
    low, high = given
    if not 0 < low <= high:
        raise InputError(f"{name} is ({low:g}, {high:g}); allowed: 0 < low <= high")


class EncoderRecipe(Part):
    """The network that is trained.

    Attributes:
        architecture: a DINOv3 name of `nnunet-fm encoders list`.
        layer_scale: initial LayerScale.
        drop_path: stochastic depth of the last block; it grows linearly from 0.
        rope_rescale: the student's rotary coordinates are scaled by exp(U(-ln r, ln r)); None: not
            at all.
        init: `scratch`, or a weight file that the strict loader knows (a warm start).
        card: weight card of that file, where it cannot be told from the file.
    """

    architecture: str
    layer_scale: Rate = 1e-5
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.2
    rope_rescale: Annotated[float, Field(ge=1)] | None = None
    init: str = "scratch"
    card: str | None = None


class CropPair(Part):
    """Sides of the global and local crops in pixels, and how often the pair is drawn."""

    global_size: Positive
    local_size: Positive
    probability: Share = 1.0


class BlurRecipe(Part):
    """Gaussian blur: effective probability for each kind of crop, kernel side, range of sigma (pixels)."""

    global_1: Share = 0.0
    global_2: Share = 0.9
    local: Share = 0.5
    kernel: Positive = 9
    sigma: Range = (0.1, 2.0)

    @model_validator(mode="after")
    def _kernel_is_odd(self) -> "BlurRecipe":
        if self.kernel % 2 == 0:
            raise InputError(f"kernel is {self.kernel}; allowed: odd numbers")
        _check_range("sigma", self.sigma)
        return self


class FusionRecipe(Part):
    """Registered sequences fused to three channels, as the fusion in front of a frozen encoder will do later.

    A slice for which it is not drawn, or whose volume is by itself, is repeated to three channels
    (the paper's way).

    Attributes:
        probability: of a slice to be fused.
        concentration: of the Dirichlet distribution of the weights that the three channels share.
        spread: standard deviation of what each channel's weights have on top.
    """

    probability: Share = 0.0
    concentration: Annotated[float, Field(gt=0)] = 1.0
    spread: Rate = 0.2


class ViewsRecipe(Part):
    """Crops of a slice.

    Attributes:
        slice_size: slices are resized to this side first (stage 2: 1024); None: as stored.
        pairs: crop sizes; one pair is drawn for each step, the same on every rank.
        local_crops: local crops per slice; there are always two global ones.
        global_scale: range of the share of the slice's area that a global crop covers.
        local_scale: the same of a local crop.
        aspect: range of the crop's width over height.
        flip: probability of a left-right flip.
        flip_vertical: probability of an upside-down flip (not the paper's).
        rotation: each crop is turned by an angle of U(-rotation, rotation) degrees (not the
            paper's); 0: never.
        blur: see `BlurRecipe`.
        gamma: exponent g of a random contrast change sign(x) |x|^exp(U(-g, g)) of each crop; 0:
            none.
        fusion: see `FusionRecipe`.
        foreground: a crop with a smaller share of non-zero pixels is drawn again, ten times at
            most.
    """

    slice_size: Positive | None = None
    pairs: Annotated[tuple[CropPair, ...], Field(min_length=1)] = (
        CropPair(global_size=256, local_size=112),
    )
    local_crops: Count = 8
    global_scale: Range = (0.32, 1.0)
    local_scale: Range = (0.05, 0.32)
    aspect: Range = (0.75, 4 / 3)
    flip: Share = 0.5
    flip_vertical: Share = 0.0
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    blur: BlurRecipe = BlurRecipe()
    gamma: Rate = 0.0
    fusion: FusionRecipe = FusionRecipe()
    foreground: Share = 0.0

    @model_validator(mode="after")
    def _probabilities_sum_to_one(self) -> "ViewsRecipe":
        total = sum(p.probability for p in self.pairs)
        if abs(total - 1) > 1e-6:
            raise InputError(f"the probabilities of the crop pairs sum to {total:g}; allowed: 1")
        for name in ("global_scale", "local_scale", "aspect"):
            _check_range(name, getattr(self, name))
        return self


class HeadRecipe(Part):
    """Three-layer projection head: width, bottleneck, prototypes; with weight-normalised prototypes if asked."""

    hidden: Positive = 2048
    bottleneck: Positive = 256
    prototypes: Positive = 65536
    normalised: bool = False


class MaskRecipe(Part):
    """Block masks of the student's global crops: how many crops have one, and the share of masked patches."""

    probability: Share = 0.5
    ratio: tuple[Share, Share] = (0.1, 0.5)

    @model_validator(mode="after")
    def _ratio_is_ordered(self) -> "MaskRecipe":
        _check_range("ratio", self.ratio)
        return self


class BrainDinoRecipe(Part):
    """The objective of BrainDINO (paper section 4.2.1).

    Attributes:
        method: name in the table of objectives.
        dino_head: head of the CLS token.
        ibot_head: head of the patch tokens; separate weights.
        masks: see `MaskRecipe`.
        dino_weight: of the CLS loss.
        ibot_weight: of the masked patch loss (lambda in the paper).
        koleo_weight: of the nearest-neighbour spread, summed over the two global crops.
        centring: `sinkhorn` (DINOv3) or `mean` (exponential moving average of the teacher's mean).
        centre_momentum: of `mean`.
        student_temperature: constant.
        teacher_temperature: from, to.
        teacher_temperature_steps: length of the linear way between them.
        freeze_last_layer_steps: the prototypes stay as they are for so long.
        momentum: of the teacher, from and to (cosine); the paper's is constant.
    """

    method: Literal["braindino"] = "braindino"
    dino_head: HeadRecipe = HeadRecipe()
    ibot_head: HeadRecipe = HeadRecipe()
    masks: MaskRecipe = MaskRecipe()
    dino_weight: Rate = 1.0
    ibot_weight: Rate = 1.0
    koleo_weight: Rate = 0.1
    centring: Literal["sinkhorn", "mean"] = "sinkhorn"
    centre_momentum: Share = 0.9
    student_temperature: Temperature = 0.1
    teacher_temperature: tuple[Temperature, Temperature] = (0.04, 0.07)
    teacher_temperature_steps: Count = 100_000
    freeze_last_layer_steps: Count = 1250
    momentum: tuple[Share, Share] = (0.994, 0.994)


class OptimiserRecipe(Part):
    """AdamW and its schedules.

    Attributes:
        steps: optimiser steps of the whole run.
        batch_size: slices per step, over all devices.
        peak_lr: learning rate after the warm-up.
        lr_scaling: `none`, or `sqrt_1024` (times 4 sqrt(batch / 1024), as DINOv3's code does).
        final_lr: at the last step, by half a cosine.
        warmup_steps: linear from 0.
        weight_decay: constant; none on biases, norms and LayerScale.
        betas: of AdamW.
        layer_decay: learning rate factor from a block to the one below it.
        patch_embed_lr: further factor of the patch embedding.
        clip: largest gradient norm of each of encoder and heads, separately; None: no clipping.
    """

    steps: Positive
    batch_size: Positive
    peak_lr: Rate = 1e-4
    lr_scaling: Literal["none", "sqrt_1024"] = "none"
    final_lr: Rate = 1e-6
    warmup_steps: Count = 10_000
    weight_decay: Rate = 0.04
    betas: tuple[Share, Share] = (0.9, 0.999)
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    patch_embed_lr: Rate = 0.2
    clip: Annotated[float, Field(gt=0)] | None = 3.0

    @model_validator(mode="after")
    def _warmup_fits(self) -> "OptimiserRecipe":
        if self.warmup_steps > self.steps:
            raise InputError(
                f"warmup_steps is {self.warmup_steps}; allowed: at most steps ({self.steps})"
            )
        return self


class RunRecipe(Part):
    """How the run is carried out; none of it changes what is learned, beyond rounding.

    Attributes:
        precision: Fabric's: `bf16-mixed` or `32-true`.
        checkpointing: recompute each block's activations in the backward pass.
        compile: compile each block (GPU only).
        workers: processes that make crops, per device.
        save_every: steps between checkpoints.
        keep: checkpoints that stay on disk.
        log_every: steps between lines of the log.
        most_bad_steps: steps without a finite gradient after which the run stops.
    """

    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed"
    checkpointing: bool = True
    compile: bool = True
    workers: Count = 8
    save_every: Positive = 2500
    keep: Positive = 3
    log_every: Positive = 10
    most_bad_steps: Count = 20


class Recipe(Part):
    """One pretraining run."""

    stage: Literal[1, 2] = 1
    seed: Count = 0
    encoder: EncoderRecipe
    views: ViewsRecipe = ViewsRecipe()
    objective: BrainDinoRecipe = BrainDinoRecipe()
    optimiser: OptimiserRecipe
    run: RunRecipe = RunRecipe()
