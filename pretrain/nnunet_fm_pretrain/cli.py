"""`nnunet-fm pretrain`: synthesise, prepare, run, export, probe and doctor.

Imports are made where they are needed, so that `--help` answers at once.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nnunet_fm.internal import option_types
from nnunet_fm.internal.arguments import parse_key_values
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import counted, some

if TYPE_CHECKING:
    from nnunet_fm_pretrain.data.prepare_group import Outcome
    from nnunet_fm_pretrain.data.preprocessing import StorePreprocessing

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_commands(commands: Commands) -> None:
    """Add the sub-commands to a parser."""
    _add_synthesise(commands)
    _add_prepare(commands)
    _add_run(commands)
    _add_export(commands)
    _add_probe(commands)
    _add_doctor(commands)


def _add_synthesise(commands: Commands) -> None:
    synthesise = commands.add_parser(
        "synthesise",
        aliases=["synthesize"],
        help="make synthetic brains of random contrast to pretrain on",
    )
    add = synthesise.add_argument
    add("-o", type=option_types.output_folder, required=True, metavar="FOLDER")
    add(
        "--subjects",
        type=option_types.positive_int,
        default=200,
        help="with four registered sequences each",
    )
    add("--first-seed", type=option_types.seed, default=0)
    add("-np", type=option_types.processes, default=2, help="subjects at a time")
    synthesise.set_defaults(function=_synthesise)


def _synthesise(parsed: argparse.Namespace) -> None:
    from nnunet_fm_pretrain.data.synthesis import synthesise

    table = synthesise(parsed.o, parsed.subjects, parsed.first_seed, parsed.np)
    print(f"Next: nnunet-fm pretrain prepare {table} --registered -o STORE")


def _add_prepare(commands: Commands) -> None:
    prepare = commands.add_parser("prepare", help="make a store of slices or volumes")
    add = prepare.add_argument
    add(
        "source",
        type=option_types.existing_path,
        help="folder, BIDS tree, or CSV (subject_id,dataset,sequence,path)",
    )
    add("-o", type=option_types.output_folder, required=True, metavar="STORE")
    add(
        "--size",
        type=option_types.cube_side,
        default=256,
        help="voxels a side of the cube that the brain is resized to (default: 256)",
    )
    add(
        "--slices",
        type=slices,
        default=128,
        metavar="N|all",
        help="axial slices kept of a volume, or `all` (default: 128)",
    )
    add("--volumes", action="store_true", help="store whole volumes, to be read by crop")
    triple: dict[str, Any] = {"nargs": 3, "metavar": ("Z", "Y", "X")}
    add(
        "--spacing",
        type=option_types.positive_float,
        help="mm per voxel (--volumes; default 1 1 1)",
        **triple,
    )
    add("--shape", type=option_types.cube_side, help="voxels of every volume (--volumes)", **triple)
    add(
        "--zero-to-one",
        action="store_true",
        help="intensities from 0 to 1 instead of z-scores (--volumes)",
    )
    add("--skull-strip", "--strip", type=STRIPPING, default="none", help=STRIP_HELP)
    add(
        "--uint8",
        "--compact",
        action="store_true",
        help="255 grey levels instead of float16: 0.6 of the disk",
    )
    add("--registered", action="store_true", help="sequences of a session lie on one grid")
    add(
        "--exclude-subjects",
        type=option_types.existing_file,
        metavar="FILE",
        help="subject ids to exclude, one a line",
    )
    add(
        "--dataset",
        type=option_types.text,
        help="name of the collection, where the input does not hold it",
    )
    add("--licence", type=option_types.text, help="a note for the manifest")
    add("--seed", type=option_types.seed, default=0, help="of the draw of slices")
    add("-np", type=option_types.processes, default=2, help="volumes at a time")
    add("--num-parts", type=option_types.positive_int, default=1)
    add("--part-id", type=option_types.non_negative_int, default=0)
    prepare.set_defaults(function=_prepare)


STRIPPING = option_types.CheckedBy("nnunet_fm.data.skull_stripping:find_stripper")
STRIP_HELP = "none, mask, hd-bet, deepbet, or command:PROGRAM {in} {out}"


def slices(text: str) -> int | None:
    """Read the value of --slices; None stands for all."""
    if text == "all":
        return None
    try:
        return int(option_types.voxels(text))
    except option_types.OptionError:
        raise option_types.refuse(text, f"{option_types.voxels.allowed}, or all") from None


def _preprocessing(parsed: argparse.Namespace) -> "StorePreprocessing":
    from nnunet_fm.encoders.contract import Z_SCORE, ZERO_TO_ONE
    from nnunet_fm_pretrain.data.preprocessing import Preprocessing, VolumePreprocessing

    if parsed.volumes:
        shape = tuple(parsed.shape) if parsed.shape else None
        spacing = tuple(parsed.spacing) if parsed.spacing else None
        if spacing is None and shape is None:
            spacing = VolumePreprocessing.spacing
        intensity = ZERO_TO_ONE if parsed.zero_to_one else Z_SCORE
        return VolumePreprocessing(spacing, shape, intensity=intensity)
    if parsed.spacing or parsed.shape or parsed.zero_to_one:
        raise InputError(
            "--spacing, --shape and --zero-to-one are for whole volumes; add --volumes"
        )
    kept = parsed.size if parsed.slices is None else parsed.slices
    return Preprocessing(parsed.size, kept, seed=parsed.seed)


def _prepare(parsed: argparse.Namespace) -> int:
    from nnunet_fm_pretrain.data.prepare import prepare
    from nnunet_fm_pretrain.data.prepare_group import PrepareOptions

    preprocessing = _preprocessing(parsed)
    options = PrepareOptions(
        parsed.o, preprocessing, parsed.skull_strip, parsed.uint8, parsed.registered
    )
    print(f"options: {options.describe()}{_kept_slices(preprocessing)}", flush=True)
    outcomes = prepare(
        parsed.source,
        options,
        parsed.np,
        (parsed.part_id, parsed.num_parts),
        parsed.exclude_subjects,
        parsed.dataset,
        parsed.licence or "",
    )
    return _report_volumes(outcomes, parsed.o)


def _report_volumes(outcomes: Sequence["Outcome"], store: Path) -> int:
    """Print what was made of which sessions, and what failed; return the exit code."""
    from nnunet_fm_pretrain.data.records import sequences_of_sessions

    failed = [o for o in outcomes if not o.record]
    made = sum(not o.ready for o in outcomes if o.record)
    ready = len(outcomes) - len(failed) - made
    subjects = sorted({f"{o.source.dataset}/{o.source.subject}" for o in outcomes})
    print(f"{counted(len(subjects), 'subject')}: {some(subjects)}")
    records = [outcome.record for outcome in outcomes if outcome.record]
    for sequences, sessions in sequences_of_sessions(records).items():
        print(f"  {counted(sessions, 'session')} with {', '.join(sequences)}")
    print(f"{counted(made, 'volume')} made, {ready} ready, {len(failed)} failed: {store}")
    for outcome in failed[:10]:
        print(f"  {outcome.source.name}: {outcome.reason}", file=sys.stderr)
    if failed:
        print(
            f"all of them: {store}/failures*.csv. Repair or exclude them, then rerun the "
            "command: finished volumes are kept",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _kept_slices(preprocessing: "StorePreprocessing") -> str:
    from nnunet_fm_pretrain.data.preprocessing import Preprocessing

    if not isinstance(preprocessing, Preprocessing) or preprocessing.slices == preprocessing.size:
        return ""
    return (
        f" ({preprocessing.slices} of the {preprocessing.size} axial slices of a volume are kept; "
        "--slices all keeps all)"
    )


def _add_run(commands: Commands) -> None:
    run = commands.add_parser(
        "run",
        help="train an encoder; rerun the command to resume",
        usage="nnunet-fm pretrain run RECIPE --store STORE -o RUN [KEY=VALUE ...]",
        epilog="KEY=VALUE changes one key of the recipe, e.g. optimiser.steps=1000",
    )
    run.add_argument(
        "recipe", type=option_types.text, help="name of a shipped recipe, or a YAML file"
    )
    run.add_argument("--store", type=option_types.existing_path, required=True)
    run.add_argument("-o", type=option_types.output_folder, required=True, metavar="RUN")
    run.add_argument(
        "--init-from",
        "--from",
        type=option_types.existing_path,
        metavar="RUN",
        help="start from that run's weights (stage 2)",
    )
    run.add_argument("--accelerator", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    run.set_defaults(function=_run, overrides=[])


def _run(parsed: argparse.Namespace) -> int:
    from nnunet_fm_pretrain.methods.recipes import read_recipe
    from nnunet_fm_pretrain.methods.registry import get_method

    # wrong words are reported before the slow imports
    recipe = read_recipe(parsed.recipe, parsed.overrides)
    get_method(recipe.objective.method).open_store(parsed.store)
    from nnunet_fm_pretrain.engine.shutdown import StoppedError
    from nnunet_fm_pretrain.runs import pretrain

    try:
        report = pretrain(
            recipe, parsed.store, parsed.o, parsed.init_from, accelerator=parsed.accelerator
        )
    except StoppedError as stopped:  # the log has said where
        return 128 + stopped.number  # exit code of a shell
    if report:
        print(f"finished: {parsed.o}. Next: nnunet-fm pretrain export {parsed.o} -o ENCODER.pth")
    return 0


def _add_export(commands: Commands) -> None:
    export = commands.add_parser(
        "export", help="write the trained encoder as a file for nnunet-fm plan --encoder"
    )
    export.add_argument(
        "run",
        type=option_types.existing_path,
        help="folder of the run, or one of its checkpoints",
    )
    export.add_argument(
        "-o",
        type=option_types.encoder_file,
        required=True,
        metavar="FILE",
        help=".pth (DINOv3's form) or .safetensors",
    )
    export.add_argument("--half", action="store_true", help="float16: half the size")
    export.set_defaults(function=_export)


def _export(parsed: argparse.Namespace) -> None:
    from nnunet_fm_pretrain.runs import export

    card = export(parsed.run, parsed.o, parsed.half)
    if card["step"] < card["steps"]:
        print(
            f"note: this encoder is of step {card['step']} of {card['steps']}, as the run is not "
            "finished"
        )
    print(f"wrote {parsed.o}: {card['card']}, licence: {card['licence']}")
    print(f"Next: nnunet-fm plan -d DATASET --encoder {parsed.o}")


def _add_probe(commands: Commands) -> None:
    probe = commands.add_parser(
        "probe", help="linear probes, compared with random weights and raw pixels"
    )
    add = probe.add_argument
    add(
        "encoders",
        type=option_types.existing_file,
        nargs="+",
        metavar="FILE",
        help="weight files of one network",
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
    add("--slices", type=option_types.voxels, default=64, help="as in prepare")
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
    from nnunet_fm_pretrain.probing.run import encoders_and_random, probe_patches, probe_table

    given = parse_key_values(parsed.encoder_options)
    encoders = encoders_and_random(parsed.encoders, parsed.seeds, parsed.card, given)
    spacing = tuple(parsed.spacing) if parsed.spacing else None
    inputs = inputs_for(encoders, Preprocessing(parsed.size, parsed.slices), spacing)
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


def _add_doctor(commands: Commands) -> None:
    doctor = commands.add_parser(
        "doctor", help="check packages, devices, a store and a recipe; print the fixes"
    )
    doctor.add_argument(
        "--store",
        type=option_types.existing_path,
        help="read every volume of it and compare with the manifest",
    )
    doctor.add_argument(
        "--recipe", type=option_types.text, help="does it fit the store and this machine?"
    )
    doctor.set_defaults(function=_doctor)


def _doctor(parsed: argparse.Namespace) -> int:
    from nnunet_fm.internal.findings import print_findings
    from nnunet_fm_pretrain.doctor import run_checks

    return print_findings(run_checks(parsed.store, parsed.recipe))
