"""The parser that all commands share, and options that several of them take."""

import argparse
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from nnunet_fm.internal import option_types
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Commands = argparse._SubParsersAction


perturbation = option_types.CheckedBy("nnunet_fm.data.perturbations:Perturbation.parse")
label_scheme = option_types.CheckedBy("nnunet_fm.data.label_schemes:get_scheme")


class CommandParser(argparse.ArgumentParser):
    """Parser of a command: takes `--debug`, and no abbreviated options.

    Sub-parsers are of this class too, so `--debug` may stand before or after a command's name.
    `set_defaults(default_command=NAME)` names the sub-command that is meant where none is given,
    `set_defaults(unknown_arguments=[])` collects the words that the command does not know.
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
        """Parse as argparse does, after inserting the default sub-command where none is given.

        Raises:
            InputError: words that are not allowed; close matches are named.
        """
        argv = list(args or ())
        default = self.get_default("default_command")
        names = self._names()
        words = [word for word in argv if word != "--debug"]
        if words and words[0] not in {*names, "-h", "--help"}:
            self._refuse_unknown(words[0], names, default)
            if default:
                argv.insert(0, default)
        if names or self.get_default("unknown_arguments") is not None:
            return super().parse_known_args(argv, namespace)
        # before argparse misses the option that was meant
        self.refuse_unknown_options([w for w in argv if w.startswith("--")], self.option_names())
        parsed, rest = super().parse_known_args(argv, namespace)
        self.refuse_unknown_options(rest, self.option_names())
        return parsed, rest

    def error(self, message: str) -> NoReturn:
        """Raise InputError, which the command line prints as every other.

        The message of argparse names the option.
        """
        raise InputError(f"{message}. See {self.prog} -h")

    def option_names(self) -> set[str]:
        """Return the names of this command's options."""
        return set(self._option_string_actions)

    def refuse_unknown_options(self, argv: Sequence[str], names: Iterable[str]) -> None:
        """Raise InputError for a word that looks like an option and is none of `names`."""
        if any(action.nargs == argparse.REMAINDER for action in self._actions):
            return
        known = set(names)
        for word in argv:
            if word == "--":
                return
            option = word.partition("=")[0]
            if not _looks_like_option(word) or option in known:
                continue
            if not word.startswith("--") and word[:2] in known:  # -oFOLDER
                continue
            self.error(unknown("option", option, known).rstrip("."))

    def _refuse_unknown(self, word: str, names: set[str], default: str | None) -> None:
        """Exit for a word that is no command; with a default, only for one that resembles one."""
        if not names or word.startswith("-"):
            return
        if default and (Path(word).exists() or not get_close_matches(word, names, cutoff=0.75)):
            return
        self.error(unknown("command", word, names).rstrip("."))

    def _names(self) -> set[str]:
        groups = [a for a in self._actions if isinstance(a, argparse._SubParsersAction)]
        return {name for group in groups for name in group.choices}


def _looks_like_option(word: str) -> bool:
    """Whether argparse takes a word for an option: not a negative number, nor a sentence."""
    if not word.startswith("-") or word == "-" or " " in word:
        return False
    return not word[1:2].isdecimal() and word[1:2] != "."


def add_group(
    commands: Commands, name: str, text: str, aliases: Sequence[str] = ()
) -> "tuple[argparse.ArgumentParser, Commands]":
    """Add a command that has sub-commands.

    Returns:
        Its parser, and the object that sub-commands are added to.
    """
    parser = commands.add_parser(name, help=text, aliases=aliases)
    return parser, parser.add_subparsers(required=True, metavar="COMMAND")


def add_prefer(parser: argparse.ArgumentParser) -> None:
    """Add `--prefer ENTITY=VALUE`, which may be repeated."""
    parser.add_argument(
        "--prefer",
        type=option_types.CheckedBy("nnunet_fm.data.bids:parse_preference"),
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


def add_card(parser: argparse.ArgumentParser) -> None:
    """Add `--card NAME`, for commands that take a weight file."""
    parser.add_argument(
        "--card",
        type=option_types.text,
        metavar="NAME",
        help="weight card of the file, if the file does not identify itself",
    )


def add_encoder_option(parser: argparse.ArgumentParser, example: str) -> None:
    """Add `--encoder-option KEY=VALUE`, which may be repeated; `--option` is its former name."""
    parser.add_argument(
        "--encoder-option",
        "--option",
        dest="encoder_options",
        type=option_types.key_value,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"argument of the encoder's architecture, e.g. {example}; may be repeated",
    )


def add_weights_seed(parser: argparse.ArgumentParser) -> None:
    """Add `--seed N`, for an encoder without a file."""
    parser.add_argument(
        "--seed",
        type=option_types.seed,
        help="seed of random weights, for an architecture without a file (default: 0)",
    )


def add_encoder(parser: argparse.ArgumentParser, example: str) -> None:
    """Add `--encoder` and what chooses its weights; `example` is one of its options."""
    parser.add_argument(
        "--encoder",
        type=option_types.encoder,
        required=True,
        metavar="NAME|FILE",
        help="weight file, hf://OWNER/NAME[@REVISION][/FILE], bundled weights, or an architecture "
        "for random weights",
    )
    add_card(parser)
    add_weights_seed(parser)
    add_encoder_option(parser, example)


def add_preprocessing(parser: argparse.ArgumentParser, default: str) -> None:
    """Add how volumes are read before an encoder sees them whole.

    Args:
        parser: of the command.
        default: the default of `--shape` in words.
    """
    parser.add_argument(
        "--shape",
        type=option_types.voxels,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help=f"voxels that a brain is resized to (default: {default}; with --spacing, whole "
        "patches that hold 192 x 256 x 256 mm)",
    )
    parser.add_argument(
        "--spacing",
        type=option_types.positive_float,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="resample brains to voxels of so many mm, and centre them in --shape, instead of "
        "resizing each brain to --shape",
    )
    parser.add_argument(
        "--together",
        action="store_true",
        help="give the registered volumes of a visit to the encoder together, as its channels, "
        "instead of one volume at a time",
    )
    add_skull_strip(
        parser, "none, mask, hd-bet, deepbet or command:PROGRAM {in} {out} (default: none)"
    )
    parser.add_argument(
        "-np",
        type=option_types.processes_or_none,
        default=2,
        help="processes that read and preprocess volumes; 0: this one",
    )


def add_skull_strip(parser: argparse.ArgumentParser, text: str) -> None:
    """Add `--skull-strip NAME`; `--strip` is its former name."""
    parser.add_argument(
        "--skull-strip",
        "--strip",
        type=option_types.CheckedBy("nnunet_fm.data.skull_stripping:find_stripper"),
        default="none",
        metavar="NAME",
        help=text,
    )
