"""Recipes of PRISM: the crop, what is masked in it, and the losses."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nnunet_fm.internal.config import Count, Part, Positive, Text
from nnunet_fm.internal.errors import InputError
from nnunet_fm_pretrain.engine.recipe import (
    ObjectiveRecipe,
    Range,
    Rate,
    Recipe,
    Share,
    check_family,
    check_range,
)

FAMILY = "prism_"
STRIDE = 32  # voxels per cell of the deepest map


class MaskingRecipe(Part):
    """Blocks of the crop that are replaced.

    Attributes:
        share: of the voxels that is replaced at least (paper: 0.3).
        edges: range of the edges of a block, as a share of the crop's side.
        swap: share of the blocks that are filled with a crop of another scan of the batch; the
            others are filled with noise.
    """

    share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    edges: Range = (0.05, 0.25)
    swap: Share = 0.5

    @model_validator(mode="after")
    def _edges_are_ordered(self) -> "MaskingRecipe":
        check_range("views.masking.edges", self.edges)
        if self.edges[1] > 1:
            raise InputError(f"views.masking.edges ends at {self.edges[1]:g}; allowed: at most 1")
        return self


class CropRecipe(Part):
    """What is taken of a scan.

    Attributes:
        size: side of the crop in voxels, a multiple of 32.
        reorient: put the axes in a random order and flip each with probability 0.5.
        masking: see `MaskingRecipe`.
    """

    size: Positive = 96
    reorient: bool = True
    masking: MaskingRecipe = MaskingRecipe()

    @model_validator(mode="after")
    def _size_fits(self) -> "CropRecipe":
        if self.size % STRIDE:
            raise InputError(f"views.size {self.size}; allowed: a multiple of {STRIDE}")
        return self


class PrismObjective(ObjectiveRecipe):
    """Reconstruction, metadata, region, translation and contrast (section 4.2 of the paper).

    Attributes:
        method: `prism`.
        reconstruction_weight: of the absolute error of all voxels.
        metadata_weight: of the absolute errors of TR, TE and flip angle.
        region_weight: of the cross entropy of the body region.
        adversarial_weight: of the losses of discriminator and generator; with 0, neither is
            trained.
        contrast_weight: of the contrast of anatomy.
        translation_start: step at which the contrast begins, and discriminator and generator are
            trained. 0 is the paper's; early on, a small network makes images that are nearly
            constant, which the discriminator tells apart at once.
        temperature: of the contrast.
        contrast: `paper`: it trains the encoder too, on synthetic images that are not followed back
            to the generator; `reference`: it trains the generator alone, as in the authors' code,
            on a projection that stays random.
        regions: body regions that are told apart, as the store names them; none: there is no such
            loss.
        upsampling: of the decoder: `transposed` convolutions as in the paper, or `trilinear` as in
            the authors' code.
        generator_every: steps between those in which the generator is trained.
        mapping_depth: layers from the random vector to the P-space.
        projection: numbers of the vectors that are contrasted.
    """

    method: Literal["prism"] = "prism"
    reconstruction_weight: Rate = 1.0
    metadata_weight: Rate = 1.0
    region_weight: Rate = 1.0
    adversarial_weight: Rate = 1.0
    contrast_weight: Rate = 0.5
    translation_start: Count = 0
    temperature: Annotated[float, Field(gt=0)] = 0.5
    contrast: Literal["paper", "reference"] = "paper"
    regions: tuple[Text, ...] = ()
    upsampling: Literal["transposed", "trilinear"] = "transposed"
    generator_every: Positive = 10
    mapping_depth: Positive = 4
    projection: Positive = 512

    @model_validator(mode="after")
    def _regions_differ(self) -> "PrismObjective":
        if len(self.regions) == 1 or len(set(self.regions)) < len(self.regions):
            raise InputError(
                f"objective.regions is [{', '.join(self.regions)}]; allowed: two or more, each "
                "once, or [] for scans of one region, which the loss cannot learn from"
            )
        return self

    @model_validator(mode="after")
    def _translations_are_trained(self) -> "PrismObjective":
        if self.contrast_weight and not self.adversarial_weight:
            raise InputError(
                f"objective.contrast_weight {self.contrast_weight:g} with adversarial_weight 0, "
                "without which the generator of what is contrasted is not trained; allowed: "
                "contrast_weight=0, or adversarial_weight above 0"
            )
        return self

    @property
    def contrast_trains_encoder(self) -> bool:
        """Whether the contrast is a part of the main phase."""
        return self.contrast == "paper" and self.contrast_weight > 0


class PrismRecipe(Recipe):
    """One run of PRISM.

    Attributes:
        views: see `CropRecipe`.
        objective: see `PrismObjective`.
    """

    views: CropRecipe = CropRecipe()
    objective: PrismObjective = PrismObjective()

    @model_validator(mode="after")
    def _parts_fit(self) -> "PrismRecipe":
        check_family(self.encoder.architecture, FAMILY)
        others = [
            name
            for name, needed in (
                ("objective.contrast_weight", self.objective.contrast_weight > 0),
                ("views.masking.swap", self.views.masking.swap > 0),
            )
            if needed
        ]
        start, steps = self.objective.translation_start, self.optimiser.steps
        if self.objective.adversarial_weight and start >= steps:
            raise InputError(
                f"objective.translation_start {start} of {steps} steps (optimiser.steps); allowed: "
                "a step before the last, or objective.adversarial_weight=0 "
                "objective.contrast_weight=0 without translation"
            )
        if self.optimiser.batch_size < 2 and others:
            raise InputError(
                f"optimiser.batch_size 1 with {' and '.join(others)}, which need other scans; "
                "allowed: 2 or more, or 0 for them"
            )
        return self
