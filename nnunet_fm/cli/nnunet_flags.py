"""The flags of nnU-Net's prediction commands, checked before nnU-Net is imported.

nnU-Net reads them itself afterwards. A flag of a later nnU-Net is passed on unchecked.
"""

import argparse
import os
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from nnunet_fm.cli.parser import CommandParser
from nnunet_fm.internal import option_types
from nnunet_fm.internal.errors import InputError

SWITCHES = (
    "--disable_tta",
    "--verbose",
    "--save_probabilities",
    "--disable_progress_bar",
    "--not_on_device",
)
PROGRAM = "nnunet-fm predict"


def prediction_parser(from_folder: bool) -> CommandParser:
    """Build a parser of the flags that nnU-Net takes.

    Args:
        from_folder: those of `nnUNetv2_predict_from_modelfolder`; else of `nnUNetv2_predict`.
    """
    parser = CommandParser(prog=PROGRAM, add_help=False)
    add = parser.add_argument
    add("-i", type=option_types.existing_folder, required=True)
    add("-o", type=option_types.output_folder, required=True)
    if from_folder:
        add("-m", type=option_types.model_folder, required=True)
    else:
        add("-d", type=option_types.name, required=True)
        add("-c", type=option_types.name, required=True)
        add("-p", type=option_types.name)
        add("-tr", type=option_types.name)
        add("-num_parts", type=option_types.positive_int, default=1)
        add("-part_id", type=option_types.non_negative_int, default=0)
    add("-f", type=fold, nargs="+")
    add("-step_size", type=option_types.fraction)
    add("-chk", type=option_types.name)
    _add_processes(parser, from_folder)
    add("-prev_stage_predictions", type=option_types.existing_folder)
    add("-device", choices=("cuda", "cpu", "mps"))
    add("--continue_prediction", "--c", action="store_true")
    for switch in SWITCHES:
        add(switch, action="store_true")
    parser.set_defaults(unknown_arguments=[])
    return parser


def _add_processes(parser: CommandParser, from_folder: bool) -> None:
    """Add the numbers of processes; only `nnUNetv2_predict` predicts without any (0)."""
    for word in ("npp", "nps"):
        if from_folder:
            parser.add_argument(f"-{word}", type=option_types.processes, default=3)
        else:
            default = os.environ.get(f"nnUNet_{word}", "3")  # as nnU-Net does
            parser.add_argument(f"-{word}", type=option_types.processes_or_none, default=default)


def check_prediction_flags(argv: Sequence[str], ours: Sequence[str]) -> list[str]:
    """Check the flags that a prediction passes on to nnU-Net.

    Args:
        argv: the flags.
        ours: names of the flags that are not nnU-Net's, for messages.

    Returns:
        The flags as nnU-Net takes them.

    Raises:
        InputError: an unknown or missing flag, or a value that is not allowed.
    """
    parser = prediction_parser("-m" in argv)
    known = {*parser.option_names(), *ours, *_flags_of_nnunet()}
    full = {name for name in known if any(_abbreviates(word, name) for word in argv)}
    abbreviations = {word for word in argv for name in full if _abbreviates(word, name)}
    allowed = known | abbreviations
    parser.refuse_unknown_options([word for word in argv if word.startswith("--")], allowed)
    parsed, rest = parser.parse_known_args(list(argv))
    parser.refuse_unknown_options(rest, allowed)
    _check_numbers(parsed)
    return ["--continue_prediction" if word == "--c" else word for word in argv]


def fold(given: str) -> str:
    """Accept the number of a fold, or `all`."""
    if given != "all" and not re.fullmatch(r"\d{1,4}", given, re.ASCII):
        raise option_types.refuse(given, "numbers of folds from 0, or all")
    return given


def _check_numbers(parsed: argparse.Namespace) -> None:
    """Refuse numbers that do not go together."""
    parts = getattr(parsed, "num_parts", 1)
    if getattr(parsed, "part_id", 0) >= parts:
        raise InputError(
            f"argument -part_id: {parsed.part_id} of {parts} parts; allowed: 0 to {parts - 1}"
        )
    if (parsed.npp == 0) != (parsed.nps == 0):
        raise InputError(
            f"arguments -npp {parsed.npp} and -nps {parsed.nps}; allowed: both above 0, or both 0"
        )


def _abbreviates(word: str, name: str) -> bool:
    """Whether argparse takes a word for a longer flag."""
    return word.startswith("--") and len(word) > 2 and name.startswith(word)


def _flags_of_nnunet() -> set[str]:
    """List the flags in nnU-Net's source, which is read, not imported."""
    specification = find_spec("nnunetv2")
    if specification is None:
        return set()
    file = Path(specification.origin or "").parent / "inference" / "predict_from_raw_data.py"
    if not file.is_file():
        return set()
    calls = re.findall(r"add_argument\(([^)]*)", file.read_text(errors="ignore"))
    return {flag for call in calls for flag in re.findall(r"['\"](--?\w+)['\"]", call)}
