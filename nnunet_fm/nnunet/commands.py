"""Start nnU-Net's commands: with this Python's programs, and with our trainers in reach."""

import os
import re
import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.folders import EXT_TRAINER, folder, with_trainers
from nnunet_fm.internal.messages import unknown

TAIL = 15  # lines of a log that an error message quotes


def command(argv: Sequence[str]) -> list[str]:
    """Return a command with its program's full path; a virtual environment need not be activated.

    Args:
        argv: program and arguments, e.g. `["nnUNetv2_train", "8", "2d_fm256", "0"]`.

    Raises:
        FileNotFoundError: there is no such program.
        ValueError: `-tr` names a trainer that nnU-Net would not find; close matches are named.
    """
    sibling = Path(sys.executable).parent / argv[0]
    program = str(sibling) if sibling.is_file() else shutil.which(argv[0])
    if program is None:
        raise MissingFileError(
            f"no command {argv[0]!r} on the path; is nnU-Net installed in this environment?"
        )
    check_trainer(argv)
    return [program, *argv[1:]]


def device_words(device: str) -> list[str]:
    """Return the words of nnU-Net's commands for a device; its default is `cuda`."""
    return [] if device == "cuda" else ["-device", device]


def flag_value(argv: Sequence[str], flag: str, default: str = "") -> str:
    """Return the word behind a flag of a command."""
    return argv[list(argv).index(flag) + 1] if flag in argv[:-1] else default


def log_tail(log: Path) -> str:
    """Quote the last lines of a log, for the error message of a command that failed."""
    tail = "\n".join(log.read_text(encoding="utf-8", errors="ignore").splitlines()[-TAIL:])
    return f"the end of {log}:\n{tail}"


def environment() -> dict[str, str]:
    """Return this process's environment with our trainers added."""
    return os.environ | {EXT_TRAINER: with_trainers(os.environ.get(EXT_TRAINER))}


def check_trainer(argv: Sequence[str]) -> None:
    """Check the trainer that a command names with `-tr`.

    Raises:
        ValueError: no folder that nnU-Net searches has a class of that name.
    """
    is_nnunet = Path(argv[0]).name.startswith(("nnUNetv2_", "nnunet-fm"))
    name = flag_value(argv, "-tr")
    if is_nnunet and name:
        require_trainer(name)


def require_trainer(name: str) -> None:
    """Raise ValueError unless nnU-Net finds a trainer; close matches or ours are named."""
    known = trainer_names()
    if name in known:
        return
    ours = ", ".join(sorted(_class_names(folder("trainers"))))
    raise InputError(
        unknown("trainer", name, known, f"nnunet-fm has {ours}; nnU-Net has nnUNetTrainer, ...")
    )


def trainer_names() -> set[str]:
    """List the classes in nnU-Net's folder of trainers and the external ones.

    The files are read, not imported, so that the command line answers at once.
    """
    folders = [Path(p) for p in environment()[EXT_TRAINER].split(os.pathsep)]
    specification = find_spec("nnunetv2")
    if specification is not None:
        package = Path(specification.origin or "").parent
        folders.append(package / "training" / "nnUNetTrainer")
    return set().union(*map(_class_names, folders))


def _class_names(trainers: Path) -> set[str]:
    names: set[str] = set()
    for file in trainers.rglob("*.py") if trainers.is_dir() else ():
        text = file.read_text(encoding="utf-8", errors="ignore")
        names.update(re.findall(r"^class (\w+)\(", text, re.MULTILINE))
    return names
