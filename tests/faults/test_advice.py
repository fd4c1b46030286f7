"""Commands and options that messages and help advise: the parser knows every one."""

import argparse
import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import nnunet_fm
import nnunet_fm_pretrain
from helpers.option_rows import every_command
from nnunet_fm.cli.main import build_parser

PACKAGES = [Path(str(package.__file__)).parent for package in (nnunet_fm, nnunet_fm_pretrain)]
ADVICE = re.compile(r"(?:type:?|See|Next:|rerun|`) ?`?nnunet-fm ((?:[a-z][\w-]* ?)+)")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*|(?<=[ (`])-[a-z][\w-]*")
COMMAND_LINE = re.compile(r"nnunet-fm [a-z][^;,:()`.]*")
OF_OTHERS = {  # pip, hd-bet, brats-evaluate, nnU-Net's planning and training, python
    *("--force-reinstall", "--save_bet_mask", "--no_bet_image"),
    *("--config", "--ref_path", "--pred_path", "--summary_json"),
    *("-npfp", "--verify_dataset_integrity", "-plans_name", "--val", "-pretrained_weights", "-u"),
    *("-overwrite_target_spacing", "-overwrite_plans_name"),
    *(
        "-copysform2qform",
        "-nan",
        "-seg",
    ),  # of fslorient;  # a missing value; the end of a file name
}


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of every string of a module that is no docstring."""
    tree = ast.parse(path.read_text())
    inside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            inside.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            inside.update(id(value) for value in node.values)
            parts = [v.value if isinstance(v, ast.Constant) else "…" for v in node.values]
            yield node.lineno, "".join(map(str, parts))
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in inside
        ):
            yield node.lineno, node.value


@functools.cache
def every_text() -> list[tuple[str, str]]:
    """Return where a string is, and its text."""
    found = []
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            found += ((f"{path.name}:{line}", text) for line, text in texts(path))
    return found


def find_command(
    words: list[str], parser: argparse.ArgumentParser | None = None
) -> tuple[argparse.ArgumentParser, list[str]] | None:
    """Return the parser of a command and the words of its name; None if there is no such one."""
    parser = parser or build_parser()
    used: list[str] = []
    for word in words:
        groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        if not groups:
            break
        if word not in groups[0].choices:
            return None if not used or not parser.get_default("default_command") else (parser, used)
        parser = groups[0].choices[word]
        used.append(word)
    return parser, used


def test_every_command_in_a_message_exists() -> None:
    for where, text in every_text():
        for match in ADVICE.finditer(text):
            assert find_command(match[1].split()) is not None, f"{where}: {match[0]}"


def test_every_option_in_a_message_exists() -> None:
    known = {name for c in every_command() for a in c.parser._actions for name in a.option_strings}
    for where, text in every_text():
        for option in OPTION.findall(text):
            assert option in known | OF_OTHERS, f"{where}: {option}"


def test_options_behind_a_command_are_its_own() -> None:
    parser = build_parser()
    for where, text in every_text():
        for match in COMMAND_LINE.finditer(text):
            words = match[0].split()[1:]
            command, _ = find_command(words, parser) or (None, [])
            if command is None or command.get_default("unknown_arguments") is not None:
                continue
            own = set(command._option_string_actions)
            unknown = [word for word in OPTION.findall(match[0]) if word not in own]
            assert not unknown, f"{where}: {match[0]}"
