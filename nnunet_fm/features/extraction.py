"""Extract slice-wise CLS tokens of a frozen encoder and their means (BrainDINO, section 4.3.2)."""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from nnunet_fm.data.perturbations import Perturbation
from nnunet_fm.data.preprocessing import PERCENTILES, Millimetres, check_spacing
from nnunet_fm.data.sequences import match_channels
from nnunet_fm.data.skull_stripping import find_stripper, warn_of_unused_masks
from nnunet_fm.data.subject_table import Table
from nnunet_fm.encoders import Encoder, EncoderSource, intensity_of, required_orientation
from nnunet_fm.encoders.intensity import RESCALED
from nnunet_fm.features.cache import POOLED, FeatureCache
from nnunet_fm.features.embedding import embed_volumes
from nnunet_fm.features.recipe import FeatureRecipe
from nnunet_fm.features.visits import visit_channels
from nnunet_fm.features.volume_loader import VolumeRef, iter_preprocessed
from nnunet_fm.internal.arguments import check_part
from nnunet_fm.internal.device import default_device
from nnunet_fm.internal.errors import InputError

NOT_TURNED = "was pretrained on RAS volumes, and volumes are read as LPS here"
TURN = "; to turn them: --encoder-option image_orientation=LPS"
PREPROCESSING_VERSION = 1  # raised whenever the same input gives other values
SHAPE = (128, 256, 256)  # voxels, (z, y, x), as in the paper
FIELD = (192, 256, 256)  # mm, (z, y, x): holds a head without its neck
PRECISIONS = ("bfloat16", "float32")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExtractedVolume:
    """Result of the extraction for one volume.

    Attributes:
        subject: name of the row, `SUBJECT` or `SUBJECT/SESSION`.
        modality: column of the table; of several volumes their columns, e.g. `T1+FLAIR`.
        path: NIfTI file or DICOM folder; of several volumes the first.
        key: key of its entry; empty if it has none.
        reason: why it has no entry; empty if it has one.
        cached: whether the entry was in the cache before.
    """

    subject: str
    modality: str
    path: Path
    key: str = ""
    reason: str = ""
    cached: bool = False


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


def extract(
    table: Table,
    encoder: Encoder,
    recipe: FeatureRecipe,
    cache: FeatureCache,
    part: tuple[int, int] = (0, 1),
    batch: int = 64,
    processes: int = 2,
    device: torch.device | None = None,
) -> list[ExtractedVolume]:
    """Extract the features of a table's volumes that are not in the cache yet.

    Args:
        table: subjects and their volumes.
        encoder: frozen encoder, see `open_encoder`.
        recipe: what its features depend on.
        cache: cache to read and to fill; every finished volume is kept if the run is interrupted.
        part: number of this part, from 0, and number of parts that the volumes are divided into.
        batch: slices per batch; batches cross volumes and do not affect results.
        processes: number of processes that read and preprocess volumes.
        device: a GPU if None and there is one.

    Returns:
        One result per volume of this part. A volume that cannot be used has a reason, and the
        others are extracted.

    Raises:
        ValueError: an impossible part, or a table with sequences that the encoder does not take.
        OSError: the cache cannot be written.
    """
    check_part(part)
    if not recipe.channels:
        check_sequences(encoder, table.modalities, "--modalities {}")
    if any(row.mask for row in table.rows):
        warn_of_unused_masks(recipe.preprocessing["strip"])
    device = device or torch.device(default_device())
    references = _volumes_of_part(table, recipe, part)
    results: dict[VolumeRef, ExtractedVolume] = {}
    copies: dict[str, list[VolumeRef]] = {}  # volumes with the same bytes are embedded once
    for reference in references:
        result = _look_up(reference, recipe, cache)
        if result.cached or result.reason:
            results[reference] = result
        else:
            copies.setdefault(result.key, []).append(reference)
    cache.hashes.save()
    missing = {key: volumes[0] for key, volumes in copies.items()}
    volumes = iter_preprocessed(missing, recipe, processes)
    embedded = embed_volumes(encoder, volumes, recipe.precision, batch, device)
    for key, vectors in tqdm(embedded, total=len(missing), desc="features", unit="volume"):
        reason = vectors if isinstance(vectors, str) else _write(cache, recipe, key, vectors)
        for reference in copies[key]:
            results[reference] = _result(reference, key="" if reason else key, reason=reason)
    return [results[reference] for reference in references]


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
    return Path(encoder).stem if Path(encoder).is_file() else source.card


def _volumes_of_part(table: Table, recipe: FeatureRecipe, part: tuple[int, int]) -> list[VolumeRef]:
    references = [
        VolumeRef(row, columns)
        for row in table.rows
        for columns in recipe.inputs_of([name for name in table.modalities if name in row.volumes])
    ]
    references.sort(key=lambda reference: (reference.row.name, reference.modality))
    number, parts = part
    return references[number::parts]


def _result(
    reference: VolumeRef, key: str = "", reason: str = "", cached: bool = False
) -> ExtractedVolume:
    return ExtractedVolume(
        reference.row.name, reference.modality, reference.path, key, reason, cached
    )


def _look_up(reference: VolumeRef, recipe: FeatureRecipe, cache: FeatureCache) -> ExtractedVolume:
    """Return the key of a volume, whether it is cached, or why it cannot be read."""
    lacking = recipe.lacking(reference.columns)
    if lacking:
        return _result(reference, reason=f"the visit has no {', '.join(lacking)}")
    try:
        key = cache.key_of(recipe, reference.row, reference.columns)
    except OSError as error:
        return _result(reference, reason=f"cannot be read: {error}")
    return _result(reference, key=key, cached=cache.read(recipe, key) is not None)


def _write(cache: FeatureCache, recipe: FeatureRecipe, key: str, vectors: list[np.ndarray]) -> str:
    """Write an entry; return why it was not written, or an empty text."""
    arrays: dict[str, np.ndarray] = {}
    if recipe.perturbation is None:  # of perturbed volumes, which are many, only means are kept
        for number, layer in zip(recipe.layers, vectors, strict=True):
            arrays[f"cls/{number}"] = layer.astype(np.float16)
    means = [layer.mean(0, dtype=np.float64) for layer in vectors]
    arrays[POOLED] = np.stack(means).astype(np.float32)
    try:
        cache.write(recipe, key, arrays)
    except FloatingPointError as error:
        return str(error)
    return ""
