"""Files of one result, replaced together, and the check that a result is complete.

A command writes its files to a temporary folder; then they take the places of the former ones. The
file `finished_<name>.json` says whether all of them are there, and how many rows each table has.
"""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunet_fm.internal.atomic_files import sync, temporary_folder, write_text
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.json_files import read_object
from nnunet_fm.internal.path_parts import check_path_below


@contextmanager
def replaced_together(folder: Path, name: str, earlier: Sequence[Path] = ()) -> Iterator[Path]:
    """Yield a temporary folder to write to; at the end its files replace those of `folder`.

    Files of the former result that the new one lacks are deleted. After an error, or if the process
    is killed while the files are being written, the former result stays as it was. If it is killed
    while the files are being moved, the result is marked incomplete.

    Args:
        folder: folder of the result; created.
        name: name of the result, for the marker `finished_<name>.json`.
        earlier: files in `folder` that belong to the result and are written already.

    Raises:
        OSError: the disk is full or not writable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with temporary_folder(folder) as temporary:
        yield temporary
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        rows = {str(path.relative_to(temporary)): _count_rows(path) for path in files}
        rows |= {str(path.relative_to(folder)): _count_rows(path) for path in earlier}
        for path in files:
            sync(path)
        marker = _marker(folder, name)
        former = _files_of(marker)
        write_text(marker, json.dumps({"finished": False}))
        for file in former - rows.keys():  # the new result has no such file
            (folder / file).unlink(missing_ok=True)
        for path in files:
            target = folder / path.relative_to(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
        write_text(marker, json.dumps({"finished": True, "rows": rows}, indent=1))


def check_finished(folder: Path, name: str) -> None:
    """Check that a result is complete; one of version 0.1 has no marker and passes.

    Args:
        folder: folder of the result.
        name: name of the result, as given to `replaced_together`.

    Raises:
        ValueError: the command was killed while it replaced the files, a file is missing, or a
            table has another number of rows than was written.
    """
    marker = _marker(folder, name)
    if not marker.is_file():
        return
    content = read_object(marker, f"rerun the command that wrote {folder}")
    if content.get("finished") is not True:
        raise InputError(
            f"{folder} is incomplete: the command that wrote it was killed; rerun that command"
        )
    for file, rows in _rows(content).items():
        path = folder / file
        if not path.is_file():
            raise InputError(f"{path} is missing; rerun the command that wrote it")
        if rows is None:
            continue
        found = _count_rows(path)
        if found != rows:
            raise InputError(
                f"{path} has {found} rows, but {rows} were written; rerun the command that wrote it"
            )


def _files_of(marker: Path) -> set[str]:
    """Return the files that a marker names, if it is one that can be read."""
    try:
        return {check_path_below(file, "a file of a result") for file in _rows(read_object(marker))}
    except (OSError, InputError):
        return set()


def _rows(content: dict[str, Any]) -> dict[str, int | None]:
    """Return the files that the content of a marker names, with the rows of each table."""
    rows = content.get("rows")
    return rows if isinstance(rows, dict) else {}


def _marker(folder: Path, name: str) -> Path:
    return folder / f"finished_{name}.json"


def _count_rows(path: Path) -> int | None:
    """Count the rows of a CSV file without its header; None for another file."""
    if path.suffix != ".csv":
        return None
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return max(sum(1 for _ in csv.reader(stream)) - 1, 0)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged ({error}); rerun the command that wrote it") from None
