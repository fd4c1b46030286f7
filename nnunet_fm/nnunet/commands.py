"""Other programs that we start: nnU-Net's own commands, found beside this Python, with our trainers in reach."""

import os
import re
import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.folders import EXT_TRAINER, with_trainers
from nnunet_fm.internal.messages import unknown

TAIL = 15  # lines


def command(words: Sequence[str]) -> list[str]:
    """The words with the program's full path; a virtual environment need not be activated.

    Raises:
        FileNotFoundError: no such program.
        ValueError: `-tr` names a trainer that nnU-Net would not find; close matches are named.
    """
    beside = Path(sys.executable).parent / words[0]
    program = str(beside) if beside.is_file() else shutil.which(words[0])
    if program is None:
        raise MissingFileError(
            f"no command {words[0]!r} on the path; is nnU-Net installed in this environment?"
        )
    check_trainer(words)
    return [program, *words[1:]]


def end_of(log: Path) -> str:
    """The last lines of a log, and where it is, for the message of a program that failed."""
    tail = "\n".join(log.read_text(errors="ignore").splitlines()[-TAIL:])
    return f"the end of {log}:\n{tail}"


def environment() -> dict[str, str]:
    """This process's environment with our trainers added."""
    return os.environ | {EXT_TRAINER: with_trainers(os.environ.get(EXT_TRAINER))}


def check_trainer(words: Sequence[str]) -> None:
    """Raise ValueError if the words carry `-tr NAME` and no folder that nnU-Net looks into has that class."""
    if "-tr" not in words[:-1] or not Path(words[0]).name.startswith(("nnUNetv2_", "nnunet-fm")):
        return
    name, known = words[list(words).index("-tr") + 1], trainer_names()
    if name not in known:
        raise InputError(unknown("trainer", name, known))


def trainer_names() -> set[str]:
    """Classes in nnU-Net's folder of trainers and in the external ones, read without importing them."""
    specification = find_spec("nnunetv2")
    stock = (
        Path(specification.origin or "").parent / "training" / "nnUNetTrainer"
        if specification
        else Path()
    )
    external = [Path(p) for p in environment()[EXT_TRAINER].split(os.pathsep)]
    files = [f for folder in (stock, *external) if folder.is_dir() for f in folder.rglob("*.py")]
    return {
        n
        for f in files
        for n in re.findall(r"^class (\w+)\(", f.read_text(errors="ignore"), re.MULTILINE)
    }
