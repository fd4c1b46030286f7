"""`nnunet-fm trainers-path`: the value of nnUNet_extTrainer."""

import argparse
import os

from nnunet_fm.cli.parser import Commands
from nnunet_fm.internal.folders import EXT_TRAINER, with_trainers


def add_command(commands: Commands) -> None:
    """Add `nnunet-fm trainers-path`; `path` is its former name."""
    command = commands.add_parser(
        "trainers-path",
        aliases=["path"],
        help='print the folder of trainers: export nnUNet_extTrainer="$(nnunet-fm trainers-path)"',
    )
    command.set_defaults(function=_trainers_path)


def _trainers_path(_: argparse.Namespace) -> None:
    print(with_trainers(os.environ.get(EXT_TRAINER)))
