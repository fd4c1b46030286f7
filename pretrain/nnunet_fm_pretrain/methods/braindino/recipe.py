"""Recipes of BrainDINO: encoder, views, masks, heads and losses."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nnunet_fm.internal.config import Count, Part, Positive
from nnunet_fm.internal.errors import InputError
from nnunet_fm_pretrain.engine.recipe import (
    EncoderRecipe,
    Range,
    Rate,
    Recipe,
    Share,
    check_range,
)
from nnunet_fm_pretrain.methods.distillation_recipe import DistillationRecipe, HeadRecipe


class StudentRecipe(EncoderRecipe):
    """The DINOv3 transformer that is trained; the teacher is its moving average.

    Attributes:
        layer_scale: initial LayerScale.
        initialisation: `dinov3` (linear weights N(0, 0.02) in every block, mask token 0), or `timm`
            (the last linear weights of a block get smaller with its depth, mask token
            N(0, 0.02)).
        drop_path: rate of stochastic depth.
        drop_path_blocks: `constant` (DINOv3: every block has this rate, and drops the same number
            of samples of each batch), or `rising` (timm: linear from 0 in the first block to this
            rate in the last, drawn for each sample).
        rope_rescale: r of the student's rotary coordinates, which are scaled by
            exp(U(-ln r, ln r)); None: not scaled.
        rope_rescale_draw: how often the scale is drawn: for each `block` (DINOv3), or once for each
            forward `pass`.
    """

    layer_scale: Rate = 1e-5
    initialisation: Literal["dinov3", "timm"] = "timm"
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.2
    drop_path_blocks: Literal["constant", "rising"] = "rising"
    rope_rescale: Annotated[float, Field(ge=1)] | None = None
    rope_rescale_draw: Literal["block", "pass"] = "pass"


class CropPair(Part):
    """Crop sizes of a step.

    Attributes:
        global_size: side of the global crops in pixels.
        local_size: side of the local crops in pixels.
        probability: of the pair to be drawn for a step.
    """

    global_size: Positive
    local_size: Positive
    probability: Share = 1.0


class BlurRecipe(Part):
    """Gaussian blur.

    Attributes:
        global_1: probability for the first global crop.
        global_2: probability for the second global crop.
        local: probability for a local crop.
        kernel: side of the kernel in pixels; odd.
        sigma: range of the standard deviation in pixels.
    """

    global_1: Share = 0.0
    global_2: Share = 0.9
    local: Share = 0.5
    kernel: Positive = 9
    sigma: Range = (0.1, 2.0)

    @model_validator(mode="after")
    def _kernel_is_odd(self) -> "BlurRecipe":
        if self.kernel % 2 == 0:
            raise InputError(f"kernel is {self.kernel}; allowed: odd numbers")
        check_range("sigma", self.sigma)
        return self


class FusionRecipe(Part):
    """Fusion of registered sequences to three channels, as in front of a frozen encoder later.

    A slice that is not fused, or whose volume has no registered sequence, is repeated to three
    channels, as in the paper.

    Attributes:
        probability: of a slice to be fused.
        concentration: of the Dirichlet distribution of the weights that the three channels share.
        spread: standard deviation of the noise that is added to each channel's weights.
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
        rotation: largest angle in degrees by which a crop is rotated (not the paper's); 0: never.
        blur: see `BlurRecipe`.
        gamma: g of a random contrast change sign(x) |x|^exp(U(-g, g)) of each crop; 0: none.
        channel_jitter: j of a random scale exp(U(-j, j)) and shift U(-j, j) of each sequence of a
            crop, the background excepted (not the paper's); 0: none.
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
    channel_jitter: Rate = 0.0
    fusion: FusionRecipe = FusionRecipe()
    foreground: Share = 0.0

    @model_validator(mode="after")
    def _probabilities_sum_to_one(self) -> "ViewsRecipe":
        total = sum(p.probability for p in self.pairs)
        if abs(total - 1) > 1e-6:
            raise InputError(f"the probabilities of the crop pairs sum to {total:g}; allowed: 1")
        for name in ("global_scale", "local_scale", "aspect"):
            check_range(name, getattr(self, name))
        return self


class MaskRecipe(Part):
    """Block masks of the student's global crops.

    Attributes:
        probability: of a crop to be masked.
        ratio: range of the share of patches that are masked.
        draw: for each `batch` (DINOv3: exactly the share `probability` of a step's global crops is
            masked, and the shares of patches are spread evenly over `ratio`), or for each `crop`
            (both are drawn at random, and blocks that do not fit leave a mask smaller).
    """

    probability: Share = 0.5
    ratio: tuple[Share, Share] = (0.1, 0.5)
    draw: Literal["batch", "crop"] = "crop"

    @model_validator(mode="after")
    def _ratio_is_ordered(self) -> "MaskRecipe":
        check_range("ratio", self.ratio)
        return self


class BrainDinoObjective(DistillationRecipe):
    """The objective of BrainDINO (paper section 4.2.1).

    Attributes:
        method: `braindino`.
        dino_head: head of the CLS token.
        ibot_head: head of the patch tokens; separate weights.
        masks: see `MaskRecipe`.
        dino_weight: weight of the CLS loss.
        ibot_weight: weight of the masked patch loss (lambda in the paper).
        koleo_weight: weight of the nearest-neighbour spread, summed over the two global crops.
        koleo_neighbours: where KoLeo looks for a slice's nearest neighbour: among the slices of one
            `rank` (DINOv3's default), or of `all` ranks.
        centring: `sinkhorn` (DINOv3) or `mean` (exponential moving average of the teacher's mean).

    The rest is `DistillationRecipe`'s; the paper's momentum is constant.
    """

    method: Literal["braindino"] = "braindino"
    dino_head: HeadRecipe = HeadRecipe()
    ibot_head: HeadRecipe = HeadRecipe()
    masks: MaskRecipe = MaskRecipe()
    dino_weight: Rate = 1.0
    ibot_weight: Rate = 1.0
    koleo_weight: Rate = 0.1
    koleo_neighbours: Literal["rank", "all"] = "all"
    centring: Literal["sinkhorn", "mean"] = "sinkhorn"


class BrainDinoRecipe(Recipe):
    """One run of BrainDINO.

    The default of a key that version 0.1 did not have is what it did, so that its runs are resumed
    as they were begun; the shipped recipes state such keys.

    Attributes:
        stage: 1, or 2 for high resolution, which starts from a stage 1 run.
        encoder: see `StudentRecipe`.
        views: see `ViewsRecipe`.
        objective: see `BrainDinoObjective`.
    """

    stage: Literal[1, 2] = 1
    encoder: StudentRecipe
    views: ViewsRecipe = ViewsRecipe()
    objective: BrainDinoObjective = BrainDinoObjective()
