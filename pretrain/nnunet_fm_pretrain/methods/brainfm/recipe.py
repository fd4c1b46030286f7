"""Recipes of BrainFM-MRI: what a session gives, the text of its sequences, decoder and losses."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nnunet_fm.encoders.families.brainfm import NAMES
from nnunet_fm.internal.config import Count, Part, Positive, Text
from nnunet_fm.internal.errors import InputError
from nnunet_fm_pretrain.engine.recipe import (
    EncoderRecipe,
    ObjectiveRecipe,
    Rate,
    Recipe,
    Share,
    check_family,
)

FAMILY = "brainfm_"


class BrainFMEncoder(EncoderRecipe):
    """The transformer that is trained.

    Attributes:
        dropout: after attention and MLP.
    """

    dropout: Share = 0.0


class TextRecipe(Part):
    """The vectors of the names of the sequences.

    Attributes:
        source: `hash` (of the letters of the names, without a language model), `table` (a file), or
            `learned`; only the last is trained.
        file: `.safetensors` with one vector per name; for `table` only.
        width: of a vector; of those in the file, or of learned ones. None: the architecture's.
        unknown: share of the scans whose name is hidden, to learn the vector of other names; for
            `learned` only, where None is 0.1.
    """

    source: Literal["hash", "table", "learned"] = "hash"
    file: Text | None = None
    width: Positive | None = None
    unknown: Annotated[float, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _file_fits(self) -> "TextRecipe":
        if (self.source == "table") != (self.file is not None):
            raise InputError(
                f"text.source={self.source} with text.file={self.file}; allowed: source=table with "
                "a file, or another source without one"
            )
        if self.unknown is not None and self.source != "learned":
            raise InputError(
                f"text.unknown={self.unknown} with text.source={self.source}, whose vectors are "
                "not trained; allowed: source=learned, or omit it"
            )
        return self


class SessionRecipe(Part):
    """What is taken of a session.

    Attributes:
        names: sequences that are taken, by the names that the store has; other scans are unused.
        most: scans of a session at a step; of more, some are drawn.
        size: side of the cube that every scan is cropped or padded to around its middle, in voxels.
        flip: probability of a left-right flip of the whole session.
        scale: s of a factor U(1 - s, 1 + s) on the z-scores of each scan.
        noise: standard deviation of Gaussian noise inside the head.
    """

    names: Annotated[tuple[Text, ...], Field(min_length=1)] = NAMES
    most: Positive = 4
    size: Positive = 128
    flip: Share = 0.5
    scale: Share = 0.1
    noise: Rate = 0.0

    @model_validator(mode="after")
    def _names_differ(self) -> "SessionRecipe":
        if len(set(self.names)) < len(self.names):
            raise InputError(f"sessions.names has one twice: {', '.join(self.names)}")
        return self


class BrainFMObjective(ObjectiveRecipe):
    """L = masked error + w(t) (variance + covariance), section 3 of the paper.

    Attributes:
        method: `brainfm`.
        mask_ratio: share of a session's tokens that are hidden (the paper names none; He et al.).
        variance_weight: weight of the hinge on the deviation of each feature.
        covariance_weight: weight of the squared covariances of different features.
        regulariser_warmup_steps: steps over which w(t) grows from 0 to 1 (5 epochs in the paper).
        decoder_depth: blocks of the decoder.
        decoder_heads: of its attention.
        decoder_hidden: width of its MLP.
    """

    method: Literal["brainfm"] = "brainfm"
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.75
    variance_weight: Rate = 0.1
    covariance_weight: Rate = 0.003
    regulariser_warmup_steps: Count = 0
    decoder_depth: Positive = 8
    decoder_heads: Positive = 12
    decoder_hidden: Positive = 1024


class BrainFMRecipe(Recipe):
    """One run of BrainFM-MRI.

    Attributes:
        encoder: see `BrainFMEncoder`.
        sessions: see `SessionRecipe`.
        text: see `TextRecipe`.
        objective: see `BrainFMObjective`.
    """

    encoder: BrainFMEncoder
    sessions: SessionRecipe = SessionRecipe()
    text: TextRecipe = TextRecipe()
    objective: BrainFMObjective = BrainFMObjective()

    @model_validator(mode="after")
    def _parts_fit(self) -> "BrainFMRecipe":
        check_family(self.encoder.architecture, FAMILY)
        return self
