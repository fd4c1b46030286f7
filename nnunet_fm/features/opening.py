"""Open a frozen encoder for the extraction of features, with everything that they depend on."""

import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nnunet_fm.data.perturbations import Perturbation
from nnunet_fm.data.preprocessing import PERCENTILES, Millimetres, check_spacing
from nnunet_fm.data.sequences import match_channels
from nnunet_fm.data.skull_stripping import find_stripper
from nnunet_fm.encoders import Encoder, EncoderSource, intensity_of, required_orientation
from nnunet_fm.encoders.intensity import RESCALED
from nnunet_fm.features.recipe import FeatureRecipe
from nnunet_fm.features.visits import visit_channels
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.hub_address import HubAddress, is_hub_address

NOT_TURNED = "was pretrained on RAS volumes, and volumes are read as LPS here"
TURN = "; to turn them: --encoder-option image_orientation=LPS"
PREPROCESSING_VERSION = 1  # raised whenever the same input gives other values
SHAPE = (128, 256, 256)  # voxels, (z, y, x), as in the paper
FIELD = (192, 256, 256)  # mm, (z, y, x): holds a head without its neck
PRECISIONS = ("bfloat16", "float32")

logger = logging.getLogger(__name__)


def open_encoder(
    encoder: str,
    card: str | None = None,
    seed: int | None = None,
    layers: Sequence[int] | None = None,
    shape: Sequence[int] | None = SHAPE,
    precision: str = PRECISIONS[0],
    strip: str = "none",
    options: dict[str, Any] | None = None,
    perturbation: Perturbation | None = None,
    spacing: Millimetres | None = None,
    visit: Sequence[str] | None = None,
) -> tuple[Encoder, FeatureRecipe]:
    """Load a frozen encoder, and return it with everything that its features depend on.

    Args:
        encoder: weight file, card, or architecture for random weights, as in
            `nnunet-fm plan --encoder`.
        card: weight card of the file; recognised from the file if None.
        seed: seed of random weights.
        layers: blocks whose CLS tokens are cached, counted from 0; the last of each quarter if
            None.
        shape: voxels that a brain is resized to, (z, y, x); along the encoder's spatial axes
            rounded down to multiples of its patch. None: the size that a 3-D encoder was
            pretrained at, and 128 x 256 x 256 for one of slices; with `spacing`, the whole
            patches that hold 192 x 256 x 256 mm.
        precision: `bfloat16` (autocast) or `float32`.
        strip: skull stripping plug-in.
        options: options of the architecture, instead of those of the card.
        perturbation: perturbation of the raw volumes, inside the clean brain mask.
        spacing: size of a voxel in mm, (z, y, x), that a brain is resampled to, and then centred in
            `shape`; None: it is resized to `shape`.
        visit: columns of a table's registered volumes, which go through the encoder together, as
            its channels; None: each volume alone.

    Raises:
        FileNotFoundError, CheckpointError, ValueError: see `EncoderSource.resolve`; or an
            impossible layer or precision.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r}; allowed: {', '.join(PRECISIONS)}")
    find_stripper(strip)
    source = EncoderSource.resolve(
        encoder, card, seed, options, None if layers is None else tuple(layers)
    )
    module = source.load()
    _check_layers(module, source.architecture, layers)
    if visit is None:
        _check_one_channel(module, source.architecture)
    if required_orientation(module, source.card, source.options) == "RAS":
        remedy = TURN if module.turn is not None else ""
        logger.warning("%s %s%s", source.card, NOT_TURNED, remedy)
    if spacing is not None:
        spacing = check_spacing(spacing)
    fitted = _fit_to_patches(module, _default_shape(module, spacing) if shape is None else shape)
    if spacing is None:
        _warn_of_voxels(module, source.card, fitted)
    preprocessing: dict[str, Any] = {
        "shape": fitted,
        "percentiles": list(PERCENTILES),
        "strip": strip,
        "version": PREPROCESSING_VERSION,
    }
    if spacing is not None:
        preprocessing["spacing"] = list(spacing)
    if visit is not None:
        preprocessing["channels"] = list(visit_channels(module, source.architecture, visit))
        if module.input_spec.zero_is_absent:
            preprocessing["absent"] = "zero"
    intensity = intensity_of(module, source.card)
    if intensity in RESCALED:
        preprocessing["intensity"] = intensity
    recipe = FeatureRecipe(
        name=_display_name(encoder, source),
        encoder=source.sha256,
        architecture=source.architecture,
        options=source.options,
        layers=module.embedded_layers,
        precision=precision,
        preprocessing=preprocessing,
        perturbation=None if perturbation is None else perturbation.to_dict(),
    )
    return module, recipe


def check_sequences(encoder: Encoder, columns: Iterable[str], remedy: str) -> None:
    """Check that an encoder of one named sequence is given volumes of that sequence only.

    Args:
        encoder: see `open_encoder`.
        columns: of the volumes.
        remedy: what to type to choose columns, with `{}` for one of them.

    Raises:
        InputError: a column of another sequence.
    """
    known = encoder.input_spec.modalities or ()
    others = [column for column in columns if match_channels(known, [column]) != [0]]
    if known and others:
        example = remedy.format(known[0])
        raise InputError(
            f"this encoder was opened for {', '.join(known)}, and the table has "
            f"{', '.join(others)}; allowed: columns of that sequence, e.g. {example}"
        )


def _warn_of_voxels(module: Encoder, card: str, shape: Sequence[int]) -> None:
    """Warn where brains are resized although the encoder knows the size of its voxels."""
    known = module.input_spec.spacing
    if known is not None:
        logger.warning(
            "%s was pretrained on voxels of %s mm, and every brain is resized to %s here; to "
            "resample by spacing: --spacing %s",
            card,
            " x ".join(f"{side:g}" for side in known),
            " x ".join(str(side) for side in shape),
            " ".join(f"{side:g}" for side in known),
        )


def _check_layers(module: Encoder, name: str, layers: Sequence[int] | None) -> None:
    """Raise InputError for layers that would have no effect."""
    if layers is not None and tuple(layers) != module.embedded_layers:
        raise InputError(
            f"encoder {name} gives one vector per input, not one per layer; "
            f"layers {list(layers)} would have no effect: remove --layers"
        )


def _check_one_channel(encoder: Encoder, architecture: str) -> None:
    """Check that an encoder takes a volume of one sequence."""
    modalities = encoder.input_spec.modalities or ()
    if len(modalities) <= 1:
        return
    allowed = "an encoder of one channel"
    if encoder.input_spec.subsets:
        allowed = f"--encoder-option modalities='[\"{modalities[0]}\"]'"
    raise InputError(
        f"encoder {architecture} knows its channels by name, {', '.join(modalities)}, and a "
        f"volume is one of them; allowed: {allowed}, or --together in features extract and heads "
        "finetune for all volumes of a visit"
    )


def _default_shape(encoder: Encoder, spacing: Millimetres | None) -> tuple[int, ...]:
    """Return the voxels, (z, y, x), of a volume whose shape was not given."""
    spec = encoder.input_spec
    if spacing is None:
        return spec.native_size if spec.spatial_dims == 3 else SHAPE
    steps = (1 if spec.spatial_dims == 2 else spec.divisor, spec.divisor, spec.divisor)
    sides = zip(FIELD, spacing, steps, strict=True)
    return tuple(math.ceil(extent / side / step) * step for extent, side, step in sides)


def _fit_to_patches(encoder: Encoder, shape: Sequence[int]) -> list[int]:
    """Round a shape down to whole patches along the encoder's spatial axes."""
    step, first_axis = encoder.input_spec.divisor, 3 - encoder.input_spec.spatial_dims
    rounded = [max(1, size // step) * step for size in shape[first_axis:]]
    return [*shape[:first_axis], *rounded]


def _display_name(encoder: str, source: EncoderSource) -> str:
    if source.seed is not None:
        return f"{source.card}_random{source.seed}"
    if is_hub_address(encoder):
        return HubAddress.parse(encoder).name
    return Path(encoder).stem if Path(encoder).is_file() else source.card
