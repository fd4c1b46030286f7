"""Names that files bring along, where they become parts of paths."""

import hashlib
import re
from pathlib import Path

from nnunet_fm.internal.errors import InputError

NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
LEADS_ELSEWHERE = re.compile(r"[\x00-\x1f\x7f/\\]")  # no name of one file or folder has these
LONGEST = 200  # bytes; systems allow 255, and endings are added


def path_part(name: str) -> str:
    """Return a name, e.g. of an encoder, as one part of a path that leads nowhere else.

    Characters that separate paths or that a system forbids become `_`, and a long name is cut.

    >>> path_part("dinov2_vitb14.lvd142m"), path_part("../../x"), path_part("a/b")
    ('dinov2_vitb14.lvd142m', '_._.._x', 'a_b')
    """
    part = NOT_IN_NAMES.sub("_", name).rstrip(". ")
    if part.startswith(".") or not part:
        part = f"_{part[1:]}"
    if len(part.encode()) > LONGEST:
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        part = f"{part.encode()[: LONGEST - 13].decode(errors='ignore')}-{digest}"
    return part


def path_below(folder: Path, name: str) -> Path:
    """Return the path of a name below a folder; `/` in it separates folders, none leads upwards."""
    return folder.joinpath(*(path_part(part) for part in name.split("/")))


def check_path_part(name: object, what: str) -> str:
    """Return a name that has to be one part of a path as it is, e.g. that of a case.

    Args:
        name: the name.
        what: what it is and where it stands, for the error's message.

    Raises:
        InputError: it is no text, is empty, leads to another folder, or holds control characters.
    """
    if not isinstance(name, str) or not name or name in (".", ".."):
        raise InputError(f"{what} is {name!r}; allowed: a name")
    if LEADS_ELSEWHERE.search(name):
        raise InputError(f"{what} is {name!r}; allowed: no /, \\ or control characters")
    return name


def check_path_below(name: object, what: str) -> str:
    """Return a relative path that stays below its folder, e.g. that of a volume of a store.

    Raises:
        InputError: it is absolute, or a part of it is no name.
    """
    parts = name.split("/") if isinstance(name, str) else [name]
    for part in parts:
        check_path_part(part, what)
    return str(name)


def check_ending(ending: object, file: Path) -> str:
    """Return the file ending that a `dataset.json` states, e.g. `.nii.gz`.

    Raises:
        InputError: it is no ending.
    """
    if not isinstance(ending, str) or not re.fullmatch(r"\.[A-Za-z0-9.]+", ending):
        raise InputError(f"{file}: file_ending is {ending!r}; allowed: an ending, e.g. .nii.gz")
    return ending
