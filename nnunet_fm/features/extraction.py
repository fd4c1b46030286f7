"""Extract slice-wise CLS tokens of a frozen encoder and their means (BrainDINO, section 4.3.2)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from nnunet_fm.data.skull_stripping import warn_of_unused_masks
from nnunet_fm.data.subject_table import Table
from nnunet_fm.encoders import Encoder
from nnunet_fm.features.cache import POOLED, FeatureCache
from nnunet_fm.features.cost import FEWEST, cost_text, seconds_per_volume
from nnunet_fm.features.embedding import embed_volumes
from nnunet_fm.features.opening import check_sequences
from nnunet_fm.features.recipe import FeatureRecipe
from nnunet_fm.features.sources import Source
from nnunet_fm.features.volume_loader import VolumeRef, iter_preprocessed
from nnunet_fm.internal.arguments import check_part
from nnunet_fm.internal.device import default_device


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


def extract(
    table: Table,
    encoder: Encoder,
    recipe: FeatureRecipe,
    cache: FeatureCache,
    part: tuple[int, int] = (0, 1),
    batch: int = 64,
    processes: int = 2,
    device: torch.device | None = None,
    announce: Callable[[str], None] | None = None,
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
        announce: is given a sentence on how long it will take, measured before it starts; nothing
            is measured if None, or for fewer than five volumes.

    Returns:
        One result per volume of this part. A volume that cannot be used has a reason, and the
        others are extracted.

    Raises:
        ValueError: an impossible part, or a table with sequences that the encoder does not take.
        OSError: the cache cannot be written.
    """
    check_part(part)
    source = Source(recipe, table.modalities)
    if not recipe.channels:
        check_sequences(encoder, table.modalities, "--modalities {}")
    if any(row.mask for row in table.rows):
        warn_of_unused_masks(recipe.preprocessing["strip"])
    device = device or torch.device(default_device())
    references = _volumes_of_part(table, source, part)
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
    if announce is not None and len(missing) >= FEWEST:
        seconds = seconds_per_volume(encoder, recipe, device)
        announce(cost_text(len(missing), seconds, recipe.unit))
    volumes = iter_preprocessed(missing, recipe, processes)
    embedded = embed_volumes(encoder, volumes, recipe.precision, batch, device)
    for key, vectors in tqdm(embedded, total=len(missing), desc="features", unit="volume"):
        reason = vectors if isinstance(vectors, str) else _write(cache, recipe, key, vectors)
        for reference in copies[key]:
            results[reference] = _result(reference, key="" if reason else key, reason=reason)
    return [results[reference] for reference in references]


def _volumes_of_part(table: Table, source: Source, part: tuple[int, int]) -> list[VolumeRef]:
    references = [VolumeRef(row, columns) for row in table.rows for columns in source.inputs(row)]
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
