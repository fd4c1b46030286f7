"""`nnunet-fm pretrain probe`."""

import argparse

from nnunet_fm.internal import option_types
from nnunet_fm.internal.arguments import parse_key_values
from nnunet_fm.internal.errors import InputError
from nnunet_fm_pretrain.cli.parser import STRIPPING, Commands


def add_command(commands: Commands) -> None:
    """Add the linear probes."""
    probe = commands.add_parser(
        "probe", help="linear probes, compared with random weights and raw pixels"
    )
    add = probe.add_argument
    add(
        "encoders",
        type=option_types.weight_file,
        nargs="+",
        metavar="FILE",
        help="weight files of one network, or their addresses on the Hub (hf://OWNER/NAME/FILE)",
    )
    add(
        "--table",
        type=option_types.existing_path,
        help="CSV with subject_id, path and targets (and mask)",
    )
    add("--skull-strip", "--strip", type=STRIPPING, default="none", help="as in prepare")
    add(
        "--card",
        type=option_types.text,
        metavar="NAME",
        help="weight card of the files, if they do not identify themselves",
    )
    add(
        "--encoder-option",
        dest="encoder_options",
        type=option_types.key_value,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="argument of the encoder's architecture, e.g. qkv_bias=true; may be repeated",
    )
    add("--targets", type=option_types.names, default=[], metavar="age,sex")
    add(
        "--held-out",
        type=option_types.existing_file,
        metavar="FILE",
        help="subjects that pretraining has not seen",
    )
    add(
        "--dataset",
        type=option_types.existing_folder,
        metavar="nnUNet_raw/DatasetXXX",
        help="labelled data for the patch probe",
    )
    add(
        "--split",
        type=option_types.existing_file,
        metavar="FILE",
        help="splits_final.json of that dataset",
    )
    add("--fold", type=option_types.non_negative_int, default=0)
    add("--size", type=option_types.cube_side, default=128, help="as in prepare")
    add(
        "--slices",
        type=option_types.voxels,
        default=64,
        help="as in prepare; encoders of adjacent slices get all",
    )
    add(
        "--spacing",
        type=option_types.positive_float,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="mm per voxel for encoders of volumes (default: that of the pretraining)",
    )
    add(
        "--seeds",
        type=option_types.positive_int,
        default=3,
        help="randomly initialised networks to compare with",
    )
    add("-o", type=option_types.output_file, metavar="CSV")
    probe.set_defaults(function=_probe)


def _probe(parsed: argparse.Namespace) -> None:
    if not (parsed.table and parsed.targets) and not (parsed.dataset and parsed.split):
        raise InputError(
            "nothing to probe; give --table FILE --targets age,sex, "
            "or --dataset FOLDER --split FILE"
        )
    from nnunet_fm.internal.atomic_files import write_csv
    from nnunet_fm_pretrain.data.preprocessing import Preprocessing
    from nnunet_fm_pretrain.probing.health import FeatureHealth, health_table
    from nnunet_fm_pretrain.probing.inputs import inputs_for
    from nnunet_fm_pretrain.probing.linear_probes import ProbeResult, markdown
    from nnunet_fm_pretrain.probing.run import (
        dataset_channels,
        encoders_and_random,
        probe_patches,
        probe_table,
    )

    given = parse_key_values(parsed.encoder_options)
    encoders = encoders_and_random(parsed.encoders, parsed.seeds, parsed.card, given)
    spacing = tuple(parsed.spacing) if parsed.spacing else None
    inputs = inputs_for(encoders, Preprocessing(parsed.size, parsed.slices), spacing)
    if parsed.dataset:  # refused before the table is probed
        dataset_channels(parsed.dataset, next(iter(encoders.values())).input_spec)
    results: list[ProbeResult] = []
    health: list[FeatureHealth] = []
    if parsed.table:
        report = probe_table(
            encoders, parsed.table, parsed.targets, inputs, parsed.held_out, parsed.skull_strip
        )
        results += report.results
        health += report.health
    if parsed.dataset:
        report = probe_patches(encoders, parsed.dataset, parsed.split, parsed.fold, inputs)
        results += report.results
        health += report.health
    print(f"{markdown(results)}\n\n{health_table(health)}")
    if parsed.o:
        write_csv(results, parsed.o)
