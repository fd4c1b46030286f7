"""Options of the planner, written once: flags, entries of a sweep and requests derive from here."""

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, field_validator

from nnunet_fm.internal import option_types
from nnunet_fm.internal.arguments import Flag
from nnunet_fm.internal.config import Count, Fraction, Name, Part, Positive, Seed, Text
from nnunet_fm.nnunet.train_subset import REFERENCE_SEED, SubsetRule, TrainSubset

STOCK_PLANS = "nnUNetPlans"
NO_ENCODER = "none"
FieldOfView = Literal["native", "fit"]
Intensity = Literal["encoder", "stock"]
Tokens = Literal["on", "off"]
Device = Literal["cpu", "cuda", "mps"]
Side = Annotated[int, Field(ge=1, le=4096)]  # pixels or voxels


class ConfigurationOptions(Part):
    """What decides a configuration: the encoder, the network around it, its patch and intensities.

    None stands for the preset's value, or for nnU-Net's where there is no encoder.
    """

    configuration: Annotated[Name, Flag("-c", metavar="CONFIGURATION")] = Field(
        "2d", description="stock configuration to inherit from, e.g. 2d or 3d_fullres"
    )
    encoder: Annotated[
        Text, Flag("--encoder", metavar="NAME|FILE|none", required=True, parse=option_types.encoder)
    ] = Field(
        NO_ENCODER,
        description="weight file, card of bundled weights, or architecture (random weights); "
        "none: stock nnU-Net on a subset",
    )
    card: Text | None = Field(
        None, description="weight card of the file, if the file does not identify itself"
    )
    preset: Name | None = Field(None, description="a file of plans/, e.g. 2d_fm512")
    patch: Annotated[
        Annotated[tuple[Side, ...], Field(min_length=1, max_length=3)] | None, Flag(metavar="N")
    ] = Field(
        None,
        description="side(s) in pixels or voxels; with --mix-slices the number of slices may come "
        "first",
    )
    fov: FieldOfView | None = Field(
        None,
        description="field of view; native: keep the spacing and pad; fit: resample so that the "
        "patch covers the median slice (slices only)",
    )
    taps: Annotated[
        Annotated[tuple[Count, ...], Field(min_length=1)] | None,
        Flag(metavar="2,5,8,11", parse=option_types.block_numbers),
    ] = Field(None, description="blocks whose features are decoded")
    fusion: Text | None = Field(
        None,
        description="learnable, fixed, learnable_then_fixed(EPOCHS), or separate: the encoder is "
        "run on each MRI channel",
    )
    channels: Annotated[
        Annotated[tuple[Count, ...], Field(min_length=1)] | None,
        Flag(metavar="0,1,2", parse=option_types.channel_numbers),
    ] = Field(
        None,
        description="for each channel of the encoder, the number of the MRI channel that it gets "
        "(default: the mean of all)",
    )
    encoder_scale: Annotated[Literal[1, 2, 4] | None, Flag(metavar="N")] = Field(
        None,
        description="enlarge slices N times for the encoder, whose tokens are then N times finer "
        "(default: 1)",
    )
    decoder: Annotated[Text | None, Flag(metavar="NAME|CLASS")] = Field(
        None,
        description="detail (default for slices); tokens of slices: primus (the paper's), light; "
        "tokens of volumes: unetr, primus3d; maps of several resolutions: pyramid; or the dotted "
        "path of a class of yours",
    )
    decoder_options: Annotated[dict[str, Any], Flag("--decoder-option", metavar="KEY=VALUE")] = (
        Field(default_factory=dict, description="option of the decoder, e.g. rank=16")
    )
    detail_width: Annotated[Positive | None, Flag(metavar="N")] = Field(
        None, description="decoder detail: channels at full resolution (default: 16)"
    )
    tokens: Tokens | None = Field(
        None,
        description="off: the decoder sees the image alone and the encoder is not computed, as a "
        "control (default: on)",
    )
    intensity: Intensity = Field(
        "encoder",
        description="encoder: normalise as in its pretraining, on data preprocessed again if that "
        "differs from nnU-Net; stock: as nnU-Net (default: %(default)s)",
    )
    mix_slices: Annotated[Literal[1, 3, 5] | None, Flag(metavar="K")] = Field(
        None, description="2.5-D: 3 or 5 neighbouring slices (1: none)"
    )
    batch_size: Positive | None = Field(
        None,
        description="slices, stacks or volumes per step (default: the stock batch, scaled to as "
        "many pixels)",
    )
    encoder_options: Annotated[
        dict[str, Any], Flag("--encoder-option", "--option", metavar="KEY=VALUE")
    ] = Field(
        default_factory=dict,
        validation_alias=AliasChoices("encoder_options", "options"),  # the latter in 0.1's sweeps
        description="option of the architecture instead of the card's, e.g. qkv_bias=true",
    )
    seed: Seed | None = Field(
        None, description="of random weights, where NAME has no file (default: 0)"
    )

    @field_validator("tokens", mode="before")
    @classmethod
    def _read_yaml_word(cls, value: Any) -> Any:
        """Read on and off, which YAML turns into true and false."""
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class PlanOptions(ConfigurationOptions):
    """Everything that `nnunet-fm plan` and `write_plans` take."""

    train_ratio: Fraction = Field(1.0, description="share of the training cases, e.g. 0.1")
    subset_seed: Seed = Field(
        REFERENCE_SEED, description="of the subset of the training cases (default: %(default)s)"
    )
    subset_rule: SubsetRule = Field(
        "nested",
        description="nested: each subset contains the smaller ones; reference: the BrainDINO "
        "release's (default: %(default)s)",
    )
    training_seed: Seed | None = Field(
        None,
        description="make the training repeat: initial weights, patches and augmentation are "
        "drawn from this seed (default: nnU-Net draws without one)",
    )
    source_plans: Annotated[Name, Flag("-p", metavar="PLANS")] = Field(
        STOCK_PLANS, description="plans to start from (default: %(default)s)"
    )
    output: Annotated[Name | None, Flag("-o", metavar="IDENTIFIER")] = Field(
        None, description="name of the plans to write (default: FM_<encoder>[_rNNN])"
    )
    device: Annotated[Device | None, Flag("-device")] = Field(
        None,
        description="where it will be trained: the default batch is smaller on a CPU (default: "
        "cuda if this machine has a GPU, else cpu)",
    )

    @property
    def subset(self) -> TrainSubset:
        """The subset of the training split.

        Raises:
            ValueError: an impossible ratio, or a seed that the rule does not allow.
        """
        return TrainSubset(self.train_ratio, self.subset_seed, self.subset_rule)
