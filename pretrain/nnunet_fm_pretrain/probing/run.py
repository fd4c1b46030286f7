"""`nnunet-fm pretrain probe`: linear probes of a frozen encoder on subjects it has not seen.

The loss of self-supervision does not measure the worth of an encoder. A linear probe that does not
beat the same network with random weights, raw pixels and a constant prediction shows that nothing
useful was learned; so all of them are reported.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from nnunet_fm.data.cell_numbers import read_number, read_numbers
from nnunet_fm.data.sequences import channel_names, match_channels
from nnunet_fm.data.skull_stripping import find_stripper
from nnunet_fm.data.subject_ids import SubjectNames
from nnunet_fm.data.table_rows import Rows, is_missing, name_in_dataset, read_rows
from nnunet_fm.encoders import (
    Encoder,
    build_encoder,
    intensity_of,
    load_encoder,
    random_state,
    required_orientation,
)
from nnunet_fm.encoders.contract import InputSpec
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.json_files import parse_json, read_list
from nnunet_fm.internal.messages import some
from nnunet_fm_pretrain.data.exclusion import read_subjects
from nnunet_fm_pretrain.data.folder_sources import nnunet_images
from nnunet_fm_pretrain.probing.features import frozen_eval
from nnunet_fm_pretrain.probing.health import FeatureHealth, feature_health
from nnunet_fm_pretrain.probing.inputs import ProbeInputs, check_one_image, probed_channels
from nnunet_fm_pretrain.probing.linear_probes import (
    Features,
    ProbeResult,
    classification_probe,
    dense_probe,
    regression_probe,
    trivial_regression,
)

logger = logging.getLogger(__name__)

TURN = ". If it takes the option: --encoder-option image_orientation=LPS"
NOTHING = "the same score for all"
CONTEXT = 3  # the wider window of raw values is this many patches a side


class ProbeReport(NamedTuple):
    """What probes measured: of targets, and of the features themselves."""

    results: list[ProbeResult]
    health: list[FeatureHealth]


def encoders_and_random(
    files: Sequence[Path | str],
    seeds: int,
    card: str | None = None,
    given: dict[str, Any] | None = None,
) -> dict[str, Encoder]:
    """Load encoders, and build the same network with random weights (timm's initialisation).

    Args:
        files: weight files of one network, or their addresses on the Hub.
        seeds: how many random networks are built.
        card: weight card of the files, if they do not identify themselves.
        given: options of the architecture, instead of those of the card.

    Returns:
        Encoders by file name, and by `random, seed N`.

    Raises:
        ValueError: files of different networks.
        FileNotFoundError, CheckpointError: as `load_encoder`.
    """
    trained, networks = {}, []
    for file in files:
        encoder, report = load_encoder(file, card, **(given or {}))
        if required_orientation(encoder, report.card, report.options) == "RAS":
            logger.warning("%s was pretrained on RAS volumes; the probes read LPS%s", file, TURN)
        # a card may know another intensity than that of its architecture
        intensity = intensity_of(encoder, report.card)
        encoder.input_spec = replace(encoder.input_spec, intensity=intensity)
        recipe = parse_json(report.about.get("recipe", "{}"), f"the recipe in {file}")
        options: dict[str, Any] = dict(report.options)
        layer_scale = recipe.get("encoder", {}).get("layer_scale")
        if layer_scale is not None:
            options["init_values"] = layer_scale
        networks.append((report.architecture, options))
        trained[str(file)] = encoder
    architecture, options = networks[0]
    if any(other != networks[0] for other in networks):
        raise InputError(f"the files hold different networks ({networks}); probe them one by one")
    random = {}
    for seed in range(seeds):
        other = build_encoder(architecture, **options)
        other.load_state_dict(random_state(architecture, seed, **options))
        random[f"random, seed {seed}"] = other
    return {name: frozen_eval(encoder) for name, encoder in {**trained, **random}.items()}


def probe_table(
    encoders: dict[str, Encoder],
    table: Path,
    targets: Sequence[str],
    inputs: ProbeInputs,
    held_out: Path | None,
    skull_strip: str = "none",
) -> ProbeReport:
    """Probe whole volumes: numbers by ridge regression, two values by logistic regression.

    Args:
        encoders: by name.
        table: CSV with `subject_id`, `path` (or `t1`), the targets, and optionally `mask`.
        targets: columns to predict.
        inputs: how subjects are read, as in pretraining.
        held_out: subjects that pretraining has not seen: they are predicted, from all others. None:
            all subjects are predicted.
        skull_strip: skull stripping plug-in, as in pretraining.

    Raises:
        ValueError: columns are missing, no subject of the table is held out, or the encoders take
            several sequences together.
    """
    for encoder in encoders.values():
        check_one_image(encoder.input_spec)
    rows, path_column = _read_probe_table(table, targets)
    for encoder in encoders.values():
        known = encoder.input_spec.modalities
        if known and path_column != "path" and match_channels(known, ["T1"]) != [0]:
            raise InputError(
                f"the encoder takes {known[0]}, and the volumes of {table} are T1 (column t1); "
                "call the column `path` if it holds the encoder's sequence"
            )
    subjects = [rows.subject(cells) for cells in rows.cells]
    unseen = SubjectNames(read_subjects(held_out) if held_out else subjects)
    tested = [
        i for i, cells in enumerate(rows.cells) if unseen.find(name_in_dataset(subjects[i], cells))
    ]
    if not tested:
        raise InputError(
            f"no subject of {table} is in {held_out}; allowed: a file that names some of them"
        )
    stripper = find_stripper(skull_strip)
    probed: dict[str, Encoder | None] = {inputs.raw: None, **encoders}
    vectors = []
    for cells in tqdm(rows.cells, desc="volume features"):
        mask = rows.path(cells, "mask")
        values = inputs.read_subject(table.parent / cells[path_column], mask, stripper)
        vectors.append({name: inputs.vector(encoder, values) for name, encoder in probed.items()})
    features = {name: np.stack([each[name] for each in vectors]) for name in probed}
    results: list[ProbeResult] = []
    for target in targets:
        truth = [cells[target] for cells in rows.cells]
        results += _probe_target(target, truth, features, tested)
    return ProbeReport(results, [feature_health(n, "subjects", x) for n, x in features.items()])


def _probe_target(
    target: str, values: Sequence[str], features: Mapping[str, Features], tested: Sequence[int]
) -> Iterator[ProbeResult]:
    """Probe all features for one target: by regression if its values are numbers."""
    if all(_is_number(v) for v in values):
        numbers = read_numbers(target, values).tolist()
        yield trivial_regression(target, numbers, tested)
        for name, x in features.items():
            yield regression_probe(name, target, x, numbers, tested)
    else:
        for name, x in features.items():
            yield classification_probe(name, target, x, values, tested)


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
        raise InputError(f"{table} lacks targets of {some(empty)}; exclude these subjects")
    _check_subjects(rows)
    return rows, path_column


def _check_subjects(rows: Rows) -> None:
    """Refuse two volumes of a subject: one would be predicted from the other."""
    names = SubjectNames()
    for cells in rows.cells:
        subject = rows.subject(cells)
        name = name_in_dataset(subject, cells)
        other = names.find(name)
        if other:
            raise InputError(
                f"{rows.file} names a subject twice: {other} and {subject}; allowed: one volume "
                "per subject"
            )
        names.add(name, subject)


def dataset_channels(raw: Path, spec: InputSpec) -> tuple[list[int], str]:
    """Return the numbers of the channels that encoders take, and the ending of a dataset's files.

    Args:
        raw: `nnUNet_raw/DatasetXXX`.
        spec: of the encoders.

    Raises:
        ValueError: no nnU-Net dataset, or one without a sequence that the encoders take by name.
    """
    described = nnunet_images(raw)
    if described is None:
        raise InputError(
            f"{raw} is no nnU-Net dataset (dataset.json with file_ending and channel_names, and "
            "imagesTr); give --dataset nnUNet_raw/DatasetXXX"
        )
    about = described[1]
    names = list(channel_names(about).values())
    return probed_channels(spec, raw.name, names), about["file_ending"]


def probe_patches(
    encoders: dict[str, Encoder], raw: Path, split: Path, fold: int, inputs: ProbeInputs
) -> ProbeReport:
    """Probe patches for whether most of the patch is labelled, on a fold of nnU-Net's.

    Args:
        encoders: by name; all of one patch size.
        raw: `nnUNet_raw/DatasetXXX`.
        split: its `splits_final.json`.
        fold: number of the fold.
        inputs: how cases are read.

    Raises:
        ValueError: no nnU-Net dataset, or one without a sequence that the encoders take by name.
    """
    spec = next(iter(encoders.values())).input_spec
    channels, ending = dataset_channels(raw, spec)
    cases_of = read_list(split)[fold]
    cases = {
        c: inputs.read_case(raw, c, channels, ending)
        for part in ("train", "val")
        for c in cases_of[part]
    }
    patch = spec.divisor
    wide = CONTEXT * patch
    probed: dict[str, tuple[Encoder | None, int]] = {
        f"{inputs.raw} {'x'.join([str(side)] * inputs.dims)}": (None, side)
        for side in (patch, wide)
    }
    probed |= {name: (encoder, patch) for name, encoder in encoders.items()}
    target = f"patches of {raw.name}"
    marked = {c: inputs.labels(case, patch) for c, case in cases.items()}
    nothing = {c: np.zeros((len(labels), 1), np.float32) for c, labels in marked.items()}
    report = ProbeReport([_dense(NOTHING, nothing, marked, cases_of, target)], [])
    for name, (encoder, context) in tqdm(probed.items(), desc="patch probes"):
        x = {c: inputs.patches(encoder, case, patch, context) for c, case in cases.items()}
        rows = np.concatenate([x[c] for c in cases_of["train"]])
        report.health.append(feature_health(name, "patches", rows))
        report.results.append(_dense(name, x, marked, cases_of, target))
    return report


def _dense(
    name: str,
    x: Mapping[str, Features],
    marked: Mapping[str, Any],
    cases_of: Mapping[str, Sequence[str]],
    target: str,
) -> ProbeResult:
    """Probe the features of the patches of all cases."""
    train, val = ([(x[c], marked[c]) for c in cases_of[part]] for part in ("train", "val"))
    return dense_probe(name, train, val, target=target)


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(read_number(text)))
    except ValueError:
        return False
