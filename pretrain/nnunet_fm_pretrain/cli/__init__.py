"""`nnunet-fm pretrain`: synthesise, prepare, embed-modalities, run, export, probe and doctor.

Imports are made where they are needed, so that `--help` answers at once.
"""

from nnunet_fm_pretrain.cli import data, probe, text, train
from nnunet_fm_pretrain.cli.parser import Commands

__all__ = ["add_commands"]


def add_commands(commands: Commands) -> None:
    """Add the sub-commands to a parser."""
    data.add_commands(commands)
    text.add_command(commands)
    train.add_commands(commands)
    probe.add_command(commands)
    train.add_doctor(commands)
