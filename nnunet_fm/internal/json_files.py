"""Read JSON files; an error names the file, the place in it and what was expected."""

import json
from pathlib import Path
from typing import Any

from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.memory import check_memory

BYTES_PER_BYTE = 10  # of memory for each byte of the file
KINDS: dict[type, str] = {dict: "an object {...}", list: "a list [...]"}


def read_object(path: Path, remedy: str = "") -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Args:
        path: the file, in UTF-8.
        remedy: what to do about a damaged file, for the error's message.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no JSON, in another encoding, nested too deeply, or another kind of value.
    """
    return dict(_read(path, dict, remedy))


def read_list(path: Path, remedy: str = "") -> list[Any]:
    """Read a JSON file that holds a list; see `read_object`."""
    return list(_read(path, list, remedy))


def parse_json(text: str, where: str, kind: type = dict, remedy: str = "") -> Any:
    """Read JSON text.

    Args:
        text: the text.
        where: names its file, for the error's message.
        kind: `dict` or `list`.
        remedy: see `read_object`.

    Raises:
        ValueError: see `read_object`.
    """
    advice = f"; {remedy}" if remedy else ""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InputError(
            f"{where} is damaged: it is not JSON ({place}: {error.msg}){advice}"
        ) from None
    except RecursionError:
        raise InputError(f"{where} is damaged: nested too deeply{advice}") from None
    except ValueError as error:  # a number of thousands of digits
        raise InputError(f"{where} is damaged: {error}{advice}") from None
    if not isinstance(content, kind):
        raise InputError(
            f"{where} is damaged: it holds {str(content)[:60]!r}; allowed: {KINDS[kind]}{advice}"
        )
    return content


def _read(path: Path, kind: type, remedy: str) -> Any:
    return parse_json(read_utf8(path, remedy), str(path), kind, remedy)


def read_utf8(path: Path, remedy: str = "") -> str:
    """Read a text file in UTF-8, with or without a byte-order mark.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another encoding, or a file that the system does not let read.
    """
    advice = f"; {remedy}" if remedy else ""
    if not path.exists():
        raise MissingFileError(f"{path} does not exist{advice}")
    try:
        check_memory(BYTES_PER_BYTE * path.stat().st_size, str(path))
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8 ({error.reason}){advice}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}){advice}") from None
