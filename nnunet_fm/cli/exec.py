"""`nnunet-fm exec`: run a command, e.g. one of nnU-Net's, with nnUNet_extTrainer set."""

import argparse

from nnunet_fm.cli.parser import Commands
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.programs import run_program
from nnunet_fm.nnunet.commands import command, environment


def add_command(commands: Commands) -> None:
    """Add `nnunet-fm exec`; `run` is its former name."""
    parser = commands.add_parser(
        "exec",
        aliases=["run"],
        usage="nnunet-fm exec [-h] [--debug] COMMAND [ARGUMENT ...]",
        help="run a command with nnUNet_extTrainer set: nnunet-fm exec nnUNetv2_train ...",
    )
    parser.add_argument(
        "argv",
        nargs=argparse.REMAINDER,
        metavar="COMMAND",
        help="command and its arguments, e.g. nnUNetv2_train 8 2d_fm256 0 -tr FrozenDinoTrainer",
    )
    parser.set_defaults(function=_exec)


def _exec(parsed: argparse.Namespace) -> int:
    if not parsed.argv:
        raise InputError(
            "no command given; type e.g. nnunet-fm exec nnUNetv2_train 8 2d_fm256 0 ..."
        )
    return run_program(command(parsed.argv), env=environment()).returncode
