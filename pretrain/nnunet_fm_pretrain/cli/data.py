"""`nnunet-fm pretrain synthesise` and `prepare`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_fm.internal import option_types
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import counted, some
from nnunet_fm_pretrain.cli.parser import STRIPPING, Commands

if TYPE_CHECKING:
    from nnunet_fm_pretrain.data.prepare_group import Outcome
    from nnunet_fm_pretrain.data.preprocessing import StorePreprocessing


def add_commands(commands: Commands) -> None:
    """Add the commands that make data."""
    _add_synthesise(commands)
    _add_prepare(commands)


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
    add(
        "--signal-equations",
        action="store_true",
        help="T1, T2, PD and FLAIR with drawn TR, TE and flip angle instead of random contrasts",
    )
    add("-np", type=option_types.processes, default=2, help="subjects at a time")
    synthesise.set_defaults(function=_synthesise)


def _synthesise(parsed: argparse.Namespace) -> None:
    from nnunet_fm_pretrain.data.synthesis import synthesise

    table = synthesise(
        parsed.o, parsed.subjects, parsed.first_seed, parsed.np, parsed.signal_equations
    )
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
