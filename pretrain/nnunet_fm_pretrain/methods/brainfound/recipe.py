"""Recipes of BrainFound: what a slab holds, and a DINOv2 transformer on it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nnunet_fm.internal.config import Part, Positive, Text
from nnunet_fm.internal.errors import InputError
from nnunet_fm_pretrain.engine.recipe import EncoderRecipe, Rate, check_family
from nnunet_fm_pretrain.methods.braindino.recipe import BrainDinoObjective, BrainDinoRecipe

FAMILIES = ("dinov2_", "brainfound_")


class SlabRecipe(Part):
    """What the channels of a sample are.

    The paper's figure has one slice of T1, T2 and FLAIR (`sequences`), its abstract sequential
    slices of one volume (`slices`); both together are volumetric.

    Attributes:
        sequences: of a session, in the order of the channels; a missing one is a copy of the first
            that is there. None: every volume for itself, whatever its sequence.
        slices: adjacent slices of each sequence, as the store has them.
    """

    sequences: Annotated[tuple[Text, ...], Field(min_length=1)] | None = ("T1", "T2", "FLAIR")
    slices: Literal[1, 3, 5] = 1

    @model_validator(mode="after")
    def _sequences_differ(self) -> "SlabRecipe":
        if self.sequences and len(set(self.sequences)) < len(self.sequences):
            raise InputError(f"sequences names one twice: {', '.join(self.sequences)}")
        return self

    @property
    def channels(self) -> int:
        """Number of channels of a slab."""
        return len(self.sequences or (None,)) * self.slices


class SlabStudent(EncoderRecipe):
    """The DINOv2 transformer that is trained; the teacher is its moving average.

    Attributes:
        architecture: a `dinov2_*` name, or a `brainfound_*` one to start from such a file; `init`
            takes a file of that architecture.
        image_size: side of the square that the learned positions are stored for, in pixels: the
            size of the global crops.
        layer_scale: initial LayerScale.
        drop_path: stochastic depth of the last block.
    """

    image_size: Positive = 224
    layer_scale: Rate = 1e-5
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.3

    @property
    def size(self) -> str:
        """Size of the architecture, e.g. `vitl14`."""
        return self.architecture.partition("_")[2]


class BrainFoundObjective(BrainDinoObjective):
    """DINO, iBOT and KoLeo (the authors' figure), and the contrast that summaries speak of.

    Attributes:
        infonce_weight: weight of the contrast; 0 is the figure's.
        infonce_positive: what a slab is contrasted with: the `adjacent` slab of its volumes, or the
            slab with copies of one `sequence` alone.
        infonce_temperature: of the cosines.
    """

    method: Literal["brainfound"] = "brainfound"  # type: ignore[assignment]
    infonce_weight: Rate = 0.0
    infonce_positive: Literal["adjacent", "sequence"] = "adjacent"
    infonce_temperature: Annotated[float, Field(gt=0)] = 0.1


class BrainFoundRecipe(BrainDinoRecipe):
    """One run of BrainFound.

    Attributes:
        encoder: see `SlabStudent`.
        slabs: see `SlabRecipe`.
        objective: see `BrainFoundObjective`.
    """

    encoder: SlabStudent  # type: ignore[assignment]
    slabs: SlabRecipe = SlabRecipe()
    objective: BrainFoundObjective = BrainFoundObjective()

    @model_validator(mode="after")
    def _parts_fit(self) -> "BrainFoundRecipe":
        if self.stage != 1:
            raise InputError("stage 2 is BrainDINO's; omit the key stage")
        if self.views.fusion.probability:
            raise InputError("views.fusion is BrainDINO's: here slabs.sequences are the channels")
        check_family(self.encoder.architecture, *FAMILIES)
        alone = self.slabs.sequences is None or len(self.slabs.sequences) == 1
        if (
            self.objective.infonce_weight
            and self.objective.infonce_positive == "sequence"
            and alone
        ):
            raise InputError(
                "objective.infonce_positive=sequence needs two slabs.sequences or more; allowed "
                "here: adjacent"
            )
        return self
