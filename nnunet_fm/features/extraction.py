"""From volumes to features: slice-wise CLS tokens of a frozen encoder, and their means (BrainDINO, section 4.3.2)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from nnunet_fm.data.perturbations import Perturbation
from nnunet_fm.data.preprocessing import PERCENTILES
from nnunet_fm.data.sequences import match_channels
from nnunet_fm.data.skull_stripping import find_stripper
from nnunet_fm.data.subject_table import Table
from nnunet_fm.encoders import Encoder, EncoderSource, intensity_of
from nnunet_fm.features.cache import POOLED, FeatureCache
from nnunet_fm.features.intensity import MADE
from nnunet_fm.features.recipe import FeatureRecipe
from nnunet_fm.features.volume_loader import Prepared, Wanted, prepared
from nnunet_fm.internal.arguments import check_part
from nnunet_fm.internal.device import keep_freed_memory
from nnunet_fm.internal.errors import InputError

PREPROCESSING_VERSION = 1  # raised whenever the same input gives other values
SHAPE = (128, 256, 256)  # voxels, (z, y, x): the paper's
PRECISIONS = ("bfloat16", "float32")


@dataclass(frozen=True)
class Outcome:
    """What became of a volume: its key, or the reason why there is none; and whether it was in the cache already."""

    subject: str
    modality: str
    path: Path
    key: str = ""
    reason: str = ""
    ready: bool = False


def open_encoder(
    given: str,
    card: str | None = None,
    seed: int | None = None,
    layers: Sequence[int] | None = None,
    shape: Sequence[int] = SHAPE,
    precision: str = PRECISIONS[0],
    strip: str = "none",
    options: dict[str, Any] | None = None,
    perturbation: Perturbation | None = None,
) -> tuple[Encoder, FeatureRecipe]:
    """Load a frozen encoder and say what its features will depend on.

    Args:
        given: weight file, card, or architecture for random weights, as `nnunet-fm plan --encoder`.
        card: weight card of the file; found from the file if None.
        seed: of random weights.
        layers: blocks whose CLS tokens are kept, 0-based; the last of each quarter if None.
        shape: voxels that a brain is resized to, (z, y, x); in the encoder's spatial axes rounded
            down to multiples of its patch.
        precision: `bfloat16` (autocast) or `float32`.
        strip: skull stripping plug-in.
        options: of the architecture, in the place of the card's.
        perturbation: done to the raw volumes, inside the clean brain mask.

    Raises:
        FileNotFoundError, CheckpointError, ValueError: as `EncoderSource.resolve`, or an impossible layer
        or precision.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r}; allowed: {', '.join(PRECISIONS)}")
    find_stripper(strip)
    source = EncoderSource.resolve(
        given, card, seed, options, None if layers is None else tuple(layers)
    )
    encoder = source.load()
    modalities = encoder.input_spec.modalities or ()
    if len(modalities) > 1:
        one = (
            f"--option modalities='[\"{modalities[0]}\"]'"
            if encoder.input_spec.subsets
            else "an encoder of one channel"
        )
        raise InputError(
            f"encoder {source.architecture} knows its channels by name, {', '.join(modalities)}, and a volume is one of them; "
            f"allowed: {one}"
        )
    step, axes = encoder.input_spec.divisor, encoder.input_spec.spatial_dims
    fitting = [n if axis < 3 - axes else max(1, n // step) * step for axis, n in enumerate(shape)]
    intensity = intensity_of(encoder, source.card)
    recipe = FeatureRecipe(
        name=_short(given, source),
        encoder=source.sha256,
        architecture=source.architecture,
        options=source.options,
        layers=encoder.embedded_layers,
        precision=precision,
        preprocessing={
            "shape": fitting,
            "percentiles": list(PERCENTILES),
            "strip": strip,
            "version": PREPROCESSING_VERSION,
            **({"intensity": intensity} if intensity in MADE else {}),
        },
        perturbation=None if perturbation is None else perturbation.to_dict(),
    )
    return encoder, recipe


def _short(given: str, source: EncoderSource) -> str:
    if source.seed is not None:
        return f"{source.card}_random{source.seed}"
    return Path(given).stem if Path(given).is_file() else source.card


def extract(
    table: Table,
    encoder: Encoder,
    recipe: FeatureRecipe,
    cache: FeatureCache,
    part: tuple[int, int] = (0, 1),
    batch: int = 64,
    processes: int = 2,
    device: torch.device | None = None,
) -> list[Outcome]:
    """Put the features of a table's volumes into the cache, those that are not there yet.

    Args:
        table: of subjects and their volumes.
        encoder: frozen, see `open_encoder`.
        recipe: what its features depend on.
        cache: to read and to fill; a finished volume survives whatever happens later.
        part: (number of this part from 0, number of parts) of the volumes.
        batch: slices at a time, across volumes.
        processes: that read and preprocess.
        device: a GPU if there is one, if None.

    Returns:
        One outcome per volume of this part; a bad volume has a reason, and the rest goes on.

    Raises:
        ValueError: an impossible part.
        OSError: the cache cannot be written.
    """
    check_part(part)
    _check_modalities(encoder, table.modalities)
    number, parts = part
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    every = [Wanted(row, m) for row in table.rows for m in table.modalities if m in row.volumes]
    mine = sorted(every, key=lambda w: (w.row.name, w.modality))[number::parts]
    outcomes: dict[Wanted, Outcome] = {}
    todo: dict[str, Wanted] = {}
    twins: dict[str, list[Wanted]] = {}  # the same bytes under several names are embedded once
    for wanted in mine:
        found = _in_cache(wanted, recipe, cache)
        if found.reason or found.ready:
            outcomes[wanted] = found
        else:
            todo.setdefault(found.key, wanted)
            twins.setdefault(found.key, []).append(wanted)
    cache.hashes.save()
    volumes = prepared(todo, recipe, processes)
    results = _embedded(encoder, volumes, recipe, batch, device)
    for key, result in tqdm(results, total=len(todo), desc="features", unit="volume"):
        reason = result if isinstance(result, str) else _write(cache, recipe, key, result)
        for wanted in twins[key]:
            outcomes[wanted] = Outcome(
                wanted.row.name, wanted.modality, wanted.path, "" if reason else key, reason
            )
    return [outcomes[w] for w in mine]


def _check_modalities(encoder: Encoder, columns: Sequence[str]) -> None:
    """Raise ValueError where volumes would be given to an encoder as another sequence than they are."""
    known = encoder.input_spec.modalities or ()
    if known and (others := [c for c in columns if match_channels(known, [c]) != [0]]):
        raise InputError(
            f"this encoder was opened for {', '.join(known)}, and the table has {', '.join(others)}; allowed: "
            f"--modalities with columns of that sequence, e.g. --modalities {known[0]}"
        )


def _in_cache(wanted: Wanted, recipe: FeatureRecipe, cache: FeatureCache) -> Outcome:
    try:
        key = cache.key_of(recipe, wanted.row, wanted.modality)
    except OSError as error:
        return Outcome(
            wanted.row.name, wanted.modality, wanted.path, reason=f"cannot be read: {error}"
        )
    ready = cache.read(recipe, key) is not None
    return Outcome(wanted.row.name, wanted.modality, wanted.path, key, ready=ready)


def _write(cache: FeatureCache, recipe: FeatureRecipe, key: str, vectors: list[np.ndarray]) -> str:
    arrays = {
        f"cls/{layer}": v.astype(np.float16)
        for layer, v in zip(recipe.layers, vectors, strict=True)
    }
    if recipe.perturbation:  # there are many; only their means are kept
        arrays = {}
    pooled = np.stack([v.mean(0, dtype=np.float64) for v in vectors]).astype(np.float32)
    try:
        cache.write(recipe, key, {**arrays, POOLED: pooled})
    except FloatingPointError as error:
        return str(error)
    return ""


@torch.inference_mode()
def _embedded(
    encoder: Encoder,
    prepared: Iterator[Prepared],
    recipe: FeatureRecipe,
    batch: int,
    device: torch.device,
) -> Iterator[tuple[str, list[np.ndarray] | str]]:
    """Vectors of each kept layer, a row per slice (2-D encoders) or one (3-D); batches run across volumes."""
    encoder = encoder.to(device)
    if device.type == "cpu":
        keep_freed_memory()
    flat = encoder.input_spec.spatial_dims == 2
    waiting: list[tuple[str, int, list[list[Tensor]]]] = []  # key, rows still to come, what came
    stock: list[Tensor] = []

    def run(inputs: Tensor) -> Iterator[tuple[str, list[np.ndarray]]]:
        x = inputs.to(device).float()
        x = x[:, None].expand(-1, encoder.in_channels, *[-1] * (x.dim() - 1))
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            vectors = encoder.embed_taps(x)
        vectors = [v.float().cpu() for v in vectors]
        at = 0
        while at < len(inputs):
            key, missing, came = waiting[0]
            taken = min(missing, len(inputs) - at)
            came.append([v[at : at + taken] for v in vectors])
            waiting[0], at = (key, missing - taken, came), at + taken
            if missing == taken:
                waiting.pop(0)
                yield key, [torch.cat(parts).numpy() for parts in zip(*came, strict=True)]

    for key, volume in prepared:
        if isinstance(volume, str):
            yield key, volume
            continue
        rows = torch.from_numpy(volume) if flat else torch.from_numpy(volume)[None]
        waiting.append((key, len(rows), []))
        stock.append(rows)
        if sum(map(len, stock)) >= batch:
            pool = torch.cat(stock)
            whole = len(pool) // batch * batch
            for part in pool[:whole].split(batch):
                yield from run(part)
            stock = [pool[whole:]] if whole < len(pool) else []
    if stock:
        for part in torch.cat(stock).split(batch):
            yield from run(part)
