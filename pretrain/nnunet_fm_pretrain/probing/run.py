"""`nnunet-fm pretrain probe`: what a frozen encoder knows of subjects it has not seen.

Self-supervision has no validation loss that means anything. A linear probe that does not beat the
same network with random weights, raw pixels and the trivial answer shows that nothing useful was
learned; so all of them are printed.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import nn
from tqdm import tqdm

from nnunet_fm.data.skull_stripping import find_stripper
from nnunet_fm.data.table_rows import Rows, is_missing, read_rows
from nnunet_fm.encoders import Encoder, build_encoder, load_encoder, random_state
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some
from nnunet_fm_pretrain.data.exclusion import read_subjects
from nnunet_fm_pretrain.data.preprocessing import Preprocessing
from nnunet_fm_pretrain.probing.features import (
    patch_features,
    patch_labels,
    quiet,
    read_case,
    read_slices,
    slice_features,
)
from nnunet_fm_pretrain.probing.linear_probes import (
    ProbeResult,
    classification_probe,
    dense_probe,
    regression_probe,
    trivial_regression,
)

PIXELS = "pixels"
CONTEXT = 3  # the wider window of pixels is this many patches a side


def encoders_and_random(files: Sequence[Path], seeds: int) -> dict[str, Encoder]:
    """The encoders of some files, and the same network with random weights, as its training began, once per seed.

    Raises:
        ValueError: files of different networks.
        FileNotFoundError, CheckpointError: as `load_encoder`.
    """
    trained, networks = {}, []
    for file in files:
        encoder, report = load_encoder(file)
        recipe = json.loads(report.about.get("recipe", "{}"))
        options: dict[str, Any] = dict(report.options)
        if "encoder" in recipe:
            options["init_values"] = recipe["encoder"]["layer_scale"]
        networks.append((report.architecture, options))
        trained[str(file)] = encoder
    architecture, options = networks[0]
    if any(other != networks[0] for other in networks):
        raise InputError(f"the files hold different networks ({networks}); probe them one by one")
    random = {}
    for seed in range(seeds):
        other = build_encoder(architecture, **options)
        cast(nn.Module, other).load_state_dict(random_state(architecture, seed, **options))
        random[f"random, seed {seed}"] = other
    return {name: quiet(encoder) for name, encoder in {**trained, **random}.items()}


def probe_table(
    encoders: dict[str, Encoder],
    table: Path,
    targets: Sequence[str],
    options: Preprocessing,
    held_out: Path | None,
    strip: str = "none",
) -> Iterator[ProbeResult]:
    """Linear probes of whole volumes: numbers by ridge regression, two-valued targets by logistic regression.

    Args:
        encoders: by name.
        table: CSV with `subject_id`, `path` (or `t1`), if there is one `mask`, and the targets.
        targets: columns to predict.
        options: preprocessing, as in pretraining.
        held_out: subjects that pretraining has not seen: they are predicted, from all others. None:
            everybody is.
        strip: skull stripping plug-in, as in pretraining.

    Raises:
        ValueError: columns are missing, or no subject of the table is held out.
    """
    rows, path_column = _read_probe_table(table, targets)
    subjects = [rows.subject(cells) for cells in rows.cells]
    excluded = set(read_subjects(held_out)) if held_out else set(subjects)
    tested = [i for i, subject in enumerate(subjects) if subject in excluded]
    if not tested:
        raise InputError(
            f"no subject of {table} is in {held_out}; allowed: a file that names some of them"
        )
    stripper, asked = find_stripper(strip), {PIXELS: None, **encoders}
    found = []
    for cells in tqdm(rows.cells, desc="volume features"):
        mask = rows.path(cells, "mask")
        slices = read_slices(table.parent / cells[path_column], mask, stripper, options)
        found.append({name: slice_features(encoder, slices) for name, encoder in asked.items()})
    features = {name: np.stack([each[name] for each in found]) for name in asked}
    for target in targets:
        values = [cells[target] for cells in rows.cells]
        if all(_is_number(v) for v in values):
            numbers = [float(v) for v in values]
            yield trivial_regression(target, numbers, tested)
            yield from (
                regression_probe(name, target, x, numbers, tested) for name, x in features.items()
            )
        else:
            yield from (
                classification_probe(name, target, x, values, tested)
                for name, x in features.items()
            )


def _read_probe_table(table: Path, targets: Sequence[str]) -> tuple[Rows, str]:
    """Read a table with one volume and all targets per subject; also return the column of paths.

    Raises:
        ValueError: columns or values are missing, or a subject has two rows.
    """
    rows = read_rows(table)
    path_column = "path" if "path" in rows.columns else "t1"
    rows.require("subject_id", path_column, *targets)
    empty = [
        rows.subject(cells)
        for cells in rows.cells
        for target in targets
        if is_missing(cells[target])
    ]
    if empty:
        raise InputError(f"{table} lacks targets of {some(empty)}; leave these subjects out")
    subjects = {rows.subject(cells) for cells in rows.cells}
    if len(subjects) < len(rows.cells):
        raise InputError(f"{table} names a subject twice; allowed: one volume per subject")
    return rows, path_column


def probe_patches(
    encoders: dict[str, Encoder], raw: Path, split: Path, fold: int, size: int
) -> Iterator[ProbeResult]:
    """Linear probe of patches: is most of the patch labelled? Trained and tested on a fold of nnU-Net's.

    Args:
        encoders: by name; all of one patch size.
        raw: `nnUNet_raw/DatasetXXX`.
        split: its `splits_final.json`.
        fold: which one.
        size: slices are resized to this side.
    """
    about = json.loads((raw / "dataset.json").read_text())
    chosen = json.loads(split.read_text())[fold]
    ending, channels = about["file_ending"], len(about["channel_names"])
    cases = {
        c: read_case(raw, c, channels, ending, size)
        for part in ("train", "val")
        for c in chosen[part]
    }
    patch = next(iter(encoders.values())).input_spec.divisor
    asked: dict[str, tuple[Encoder | None, int]] = {
        f"{PIXELS} {patch}x{patch}": (None, patch),
        f"{PIXELS} {CONTEXT * patch}x{CONTEXT * patch}": (None, CONTEXT * patch),
    }
    asked |= {name: (encoder, patch) for name, encoder in encoders.items()}
    for name, (encoder, context) in tqdm(asked.items(), desc="patch probes"):
        train, val = (
            [_patches(encoder, cases[c], patch, context) for c in chosen[p]]
            for p in ("train", "val")
        )
        yield dense_probe(name, train, val, target=f"patches of {raw.name}")


def _patches(
    encoder: Encoder | None, case: tuple[Any, Any], patch: int, context: int
) -> tuple[Any, Any]:
    images, labels = case
    return patch_features(encoder, images, patch, context), patch_labels(labels, patch)


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
