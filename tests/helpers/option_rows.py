"""Wrong words for every option of every command, derived from the parsers themselves."""

import argparse
import contextlib
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_fm.cli import main as main_module
from nnunet_fm.cli.nnunet_flags import fold, prediction_parser
from nnunet_fm.internal import option_types
from nnunet_fm.internal.option_types import CheckedBy, ExistingPath, KeyValue, Number, OutputPath
from nnunet_fm_pretrain.cli.data import slices
from nnunet_fm_pretrain.cli.parser import STRIPPING

HEAVY = ("torch", "nnunetv2", "timm", "lightning_fabric")
LONG = "x" * 300
# a right word and wrong ones, for each type that is no class of option_types
WORDS: dict[Any, tuple[str, tuple[str, ...]]] = {
    option_types.text: ("x", ("", "  ")),
    option_types.name: (
        "x",
        ("", " ", ".", "..", "../x", "a/b", "/x", "a\\b", "a\nb", LONG, "脳" * 99),
    ),
    option_types.names: ("x", ("", ",", "a,,b", "a,a")),
    option_types.KeyValue: ("x=1", ("", "x", "=1", " =1")),
    option_types.block_numbers: ("1", ("", "x", "-1", "1,1", "1,,2", "1.5", "nan", "9" * 40)),
    option_types.channel_numbers: ("0,0", ("", "x", "-1", "1,,2", "1.5", "nan", "9" * 40)),
    option_types.point: ("1,2", ("", "x", "1", "1,2,3", "1.5,2", "nan,1", "-1,2")),
    option_types.encoder: (
        "x",
        ("", " ", "gone.pth", "/gone", "./gone", LONG + ".pth", "hf://", "hf://lab", "hf://a/b@"),
    ),
    option_types.weight_file: ("hf://lab/brain", ("", " ", "gone", LONG, "hf://", "hf://lab")),
    option_types.model_folder: (
        "hf://lab/brain",
        ("", " ", "gone", LONG, "hf://", "hf://lab", "hf://lab/brain/a.safetensors"),
    ),
    fold: ("0", ("", "x", "1.5", "nan", "-1", "9" * 40)),
    slices: ("8", ("", "x", "0", "-3", "1.5", "nan", "9" * 40)),
    STRIPPING: ("none", ("", "gone", "command:", "command:echo", "command:'{in} {out}")),
    "find_stripper": ("none", ("", "gone", "command:", "command:echo", "command:gone {in} {out}")),
    "Perturbation.parse": ("gibbs=0.2", ("", "x", "x=1", "gibbs", "gibbs=nan", "gamma=-99")),
    "parse_preference": ("acq=x", ("", "acq", "x=1", "=1")),
    "get_scheme": ("gli2023", ("", "gli1999")),
}


@dataclass(frozen=True)
class Command:
    """A command without sub-commands: its words and its parser."""

    words: tuple[str, ...]
    parser: argparse.ArgumentParser

    @property
    def options(self) -> list[argparse.Action]:
        """Options and positional arguments that take a value."""
        return [a for a in self.parser._actions if a.nargs not in (0, argparse.REMAINDER)]


@dataclass(frozen=True)
class Row:
    """A command line that has to be refused.

    Attributes:
        argv: its words.
        names: one of these is named in the message.
        what: kind of fault.
    """

    argv: tuple[str, ...]
    names: tuple[str, ...]
    what: str


@dataclass(frozen=True)
class Samples:
    """Files and folders that words name."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "file.bin"

    @classmethod
    def make(cls, folder: Path) -> "Samples":
        samples = cls(folder)
        samples.file.write_bytes(b"\xff\xfe\x00\x80")
        return samples


def commands(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> list[Command]:
    """List the commands below a parser; nnU-Net's flags of `predict` are commands of their own."""
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not groups:
        return [Command(words, parser)]
    found: dict[int, Command] = {}
    for name, inner in groups[0].choices.items():
        for command in commands(inner, (*words, name)):
            found.setdefault(id(command.parser), command)  # an alias has the same parser
    return list(found.values())


def every_command() -> list[Command]:
    stock = [Command(("predict",), prediction_parser(from_folder)) for from_folder in (False, True)]
    return commands(main_module.build_parser()) + stock


def rows(command: Command, samples: Samples) -> Iterator[Row]:
    """Derive the rows of a command: wrong values, missing and misspelled options."""
    for option in command.options:
        for word in wrong_words(option, samples):
            yield Row(_line(command, samples, option, word), _names(option), f"value {word[:40]!r}")
        if option.required:
            yield Row(_line(command, samples, option, None), _missing(command, option), "missing")
        if option.option_strings and option.nargs not in ("*", "?"):
            typed = _line(command, samples, option, "x")
            yield Row(typed[:-1], _names(option), "too few words")
    good = _line(command, samples, None, None)
    actions = command.parser._actions
    passes_on = any(action.nargs == argparse.REMAINDER for action in actions)
    for option in [] if passes_on else actions:
        name = next((n for n in option.option_strings if n.startswith("--")), "")
        if name and command.parser.get_default("unknown_arguments") is None:
            yield Row((*good, f"{name[:-2]}{name[-1]}_"), (name,), "misspelled")
        if name and option.nargs == 0:
            yield Row((*good, f"{name}=x"), _names(option), "needless value")


def wrong_words(option: argparse.Action, samples: Samples) -> tuple[str, ...]:
    """Words that an option must not accept; an unknown type is an error of the option."""
    kind: Any = option.type
    if option.choices:
        return ("", "no_such_choice", "-1")
    if isinstance(kind, Number):
        return _wrong_numbers(kind)
    if isinstance(kind, ExistingPath):
        wrong = ["", " ", str(samples.folder / "gone"), str(samples.file / "inside"), LONG]
        return (*wrong, *([] if kind.folder else [str(samples.folder)]),
                *([] if kind.file else [str(samples.file)]))  # fmt: skip
    if isinstance(kind, OutputPath):
        wrong = ["", " ", str(samples.file / "inside")]
        wrong += [str(samples.file)] if kind.folder else [str(samples.folder)]
        return (*wrong, *(["wrong.txt"] if kind.suffixes else []))
    return _words(option)[1]


def right_word(option: argparse.Action, samples: Samples) -> str:
    """A word that an option accepts."""
    kind: Any = option.type
    if option.choices:
        return str(next(iter(option.choices)))
    if isinstance(kind, Number):
        return str(kind.kind(1 if kind.low in (None, 0, -1) else kind.low))
    if isinstance(kind, ExistingPath):
        return str(samples.folder if kind.folder else samples.file)
    if isinstance(kind, OutputPath):
        return str(samples.folder / f"new{kind.suffixes[0] if kind.suffixes else ''}")
    return _words(option)[0]


def _words(option: argparse.Action) -> tuple[str, tuple[str, ...]]:
    kind: Any = option.type
    key = kind
    if isinstance(kind, CheckedBy):
        key = kind.function.partition(":")[2]
    if isinstance(kind, KeyValue):
        key = KeyValue
    assert key in WORDS, (
        f"{_names(option)} has the type {kind}; give it one of nnunet_fm.internal.option_types, or "
        "add the words that a new type refuses"
    )
    return WORDS[key]


def _wrong_numbers(kind: Number) -> tuple[str, ...]:
    wrong = ["", "x", "nan", "inf", "-inf", "1e999", "0x10", "--"]
    if kind.kind is int:
        wrong += ["1.5", "1_0", "9" * 40]
    if kind.low is not None:
        wrong.append(str(kind.low if kind.above else kind.low - 1))
        wrong.append(str(-(10**9)))
    if kind.high is not None:
        wrong.append(str(kind.high + 1))
    return tuple(wrong)


def _missing(command: Command, option: argparse.Action) -> tuple[str, ...]:
    """Return what is named where an option is missing: argparse tells words by their order."""
    if option.option_strings == ["-m"]:
        return ("-d", "-c")  # the other way to name a model
    if option.option_strings:
        return _names(option)
    return tuple(name for o in command.options if not o.option_strings for name in _names(o))


def _names(option: argparse.Action) -> tuple[str, ...]:
    if option.option_strings == ["-tr"]:
        return ("-tr", "unknown trainer")
    return tuple(option.option_strings) or (option.dest, str(option.metavar))


def _line(
    command: Command, samples: Samples, wrong: argparse.Action | None, word: str | None
) -> tuple[str, ...]:
    return line(command, wrong, word, lambda _, option: right_word(option, samples))


def line(
    command: Command,
    wrong: argparse.Action | None,
    word: str | None,
    right: Callable[[Command, argparse.Action], str],
) -> tuple[str, ...]:
    """Return a command line with all that is required, and one option's value replaced or gone.

    Args:
        command: the command.
        wrong: the option with the other value.
        word: its value; None: the option is left out.
        right: returns the value of every other option.
    """
    words = [*command.words]
    flags: list[str] = []
    last: list[str] = []  # the flag that is wrong
    for option in command.options:
        if option is wrong and word is None:
            continue
        if option is not wrong and not option.required:
            continue
        good = right(command, option)
        count = option.nargs if isinstance(option.nargs, int) else 1
        values = [good] * count
        if option is wrong:
            values = [*values[1:], str(word)]
        if not option.option_strings:
            words += values
        elif option is wrong:
            last = [option.option_strings[-1], *values]
        else:
            flags += [option.option_strings[-1], *values]
    return (*words, *flags, *last)


def outcome(argv: Sequence[str]) -> tuple[int, str]:
    """Run a command line; return its exit code and what it printed on standard error."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main_module.main(list(argv))
        except SystemExit as stop:
            code = 99 if stop.code is None else int(stop.code)
    return code, said.getvalue()


def problem(row: Row) -> str:
    """Run a row; say what is wrong with its outcome, or nothing."""
    code, said = outcome(row.argv)
    if "Traceback" in said:
        return f"traceback ({said.strip().splitlines()[-2]})"
    if code != 2:
        return f"exit code {code}: {said[-200:]}"
    if len(said.strip().splitlines()) != 1:
        return f"{len(said.strip().splitlines())} lines: {said[-300:]}"
    if not any(name in said for name in row.names):
        return f"names no option: {said}"
    return ""


def run_all(folder: Path) -> tuple[int, list[str], list[str]]:
    """Run every row; for a process of its own.

    Returns:
        How many there are, what went wrong, and the slow packages that were imported.
    """
    samples = Samples.make(folder)
    parser = main_module.build_parser()  # takes longer than the rows
    main_module.build_parser = lambda: parser
    all_rows = [row for command in every_command() for row in rows(command, samples)]
    found = [f"{' '.join(row.argv)}: {said}" for row in all_rows if (said := problem(row))]
    return len(all_rows), found, [name for name in HEAVY if name in sys.modules]
