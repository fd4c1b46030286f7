"""Recipes of the masked autoencoder of slices."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nnunet_fm.internal.config import Part, Positive
from nnunet_fm_pretrain.engine.recipe import (
    EncoderRecipe,
    ObjectiveRecipe,
    Range,
    Rate,
    Recipe,
    Share,
    check_range,
)


class Mae2dEncoder(EncoderRecipe):
    """The DINOv3 transformer that is trained.

    Attributes:
        layer_scale: initial LayerScale.
        drop_path: stochastic depth of the last block; it grows linearly from 0.
    """

    layer_scale: Rate = 0.1
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Mae2dViews(Part):
    """The crop of a slice.

    Attributes:
        size: side of the crop in pixels.
        scale: range of the share of the slice's area that the crop covers.
        aspect: range of the crop's width over height.
        flip: probability of a left-right flip.
        foreground: a crop with a smaller share of non-zero pixels is drawn again, ten times at
            most.
    """

    size: Positive = 224
    scale: Range = (0.2, 1.0)
    aspect: Range = (0.75, 4 / 3)
    flip: Share = 0.5
    foreground: Share = 0.0

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> "Mae2dViews":
        check_range("scale", self.scale)
        check_range("aspect", self.aspect)
        return self


class Mae2dObjective(ObjectiveRecipe):
    """Masking, decoder and loss.

    Attributes:
        method: `mae2d`.
        mask_ratio: share of patches that are hidden.
        decoder_width: channels of the decoder; a multiple of `decoder_heads` and of 4.
        decoder_depth: blocks of the decoder.
        decoder_heads: attention heads of the decoder.
        normalise_pixels: whether each patch of the target is scaled to mean 0 and deviation 1.
    """

    method: Literal["mae2d"] = "mae2d"
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.75
    decoder_width: Annotated[int, Field(gt=0, multiple_of=4)] = 512
    decoder_depth: Positive = 8
    decoder_heads: Positive = 16
    normalise_pixels: bool = True


class Mae2dRecipe(Recipe):
    """One run of the masked autoencoder.

    Attributes:
        encoder: see `Mae2dEncoder`.
        views: see `Mae2dViews`.
        objective: see `Mae2dObjective`.
    """

    encoder: Mae2dEncoder
    views: Mae2dViews = Mae2dViews()
    objective: Mae2dObjective = Mae2dObjective()
