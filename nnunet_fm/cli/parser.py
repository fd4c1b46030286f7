"""The parser that all commands share, and an option that several of them take."""

import argparse
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_fm.internal.messages import unknown

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Commands = argparse._SubParsersAction


class CommandParser(argparse.ArgumentParser):
    """Parser of a command: takes `--debug`, and no abbreviated options.

    Sub-parsers are of this class too, so `--debug` may stand before or after a command's name.
    `set_defaults(default_command=NAME)` names the sub-command that is meant where none is given.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **options})
        self.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show the traceback of every error",
        )

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse as argparse does, after inserting the default sub-command where none is given."""
        argv = list(args or ())
        default = self.get_default("default_command")
        names = self._names()
        words = [word for word in argv if word != "--debug"]
        if words and words[0] not in {*names, "-h", "--help"}:
            self._refuse_unknown(words[0], names, default)
            if default:
                argv.insert(0, default)
        return super().parse_known_args(argv, namespace)

    def _refuse_unknown(self, word: str, names: set[str], default: str | None) -> None:
        """Exit for a word that is no command; with a default, only for one that resembles one."""
        if not names or word.startswith("-"):
            return
        if default and (Path(word).exists() or not get_close_matches(word, names, cutoff=0.75)):
            return
        self.error(unknown("command", word, names, f"See {self.prog} --help."))

    def _names(self) -> set[str]:
        groups = [a for a in self._actions if isinstance(a, argparse._SubParsersAction)]
        return {name for group in groups for name in group.choices}


def add_group(
    commands: Commands, name: str, text: str, aliases: Sequence[str] = ()
) -> "tuple[argparse.ArgumentParser, Commands]":
    """Add a command that has sub-commands.

    Returns:
        Its parser, and the object that sub-commands are added to.
    """
    parser = commands.add_parser(name, help=text, aliases=aliases)
    return parser, parser.add_subparsers(required=True, metavar="COMMAND")


def positive(text: str) -> int:
    """Parse a whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: a whole number above 0")
    return int(text)


def add_prefer(parser: argparse.ArgumentParser) -> None:
    """Add `--prefer ENTITY=VALUE`, which may be repeated."""
    parser.add_argument(
        "--prefer",
        action="append",
        default=[],
        metavar="ENTITY=VALUE",
        help="BIDS: which of several images of one sequence to take, e.g. acq=mprage or run=1; "
        "acq= takes the one without acq; may be repeated",
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add `--trust-checkpoint`."""
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="open checkpoints that hold more than nnU-Net's trainer writes; this runs code that "
        "they carry",
    )


def add_encoder_option(parser: argparse.ArgumentParser, example: str) -> None:
    """Add `--encoder-option KEY=VALUE`, which may be repeated; `--option` is its former name."""
    parser.add_argument(
        "--encoder-option",
        "--option",
        dest="encoder_options",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"argument of the encoder's architecture, e.g. {example}; may be repeated",
    )
