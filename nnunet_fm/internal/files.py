"""Write files atomically: next to their target, then moved into place."""

import csv
import hashlib
import os
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nnunet_fm.internal.errors import StorageError

TEMPORARY = ".tmp"
# torch.save says RuntimeError where the disk is full, in one of these words
WRITER = re.compile("PytorchStreamWriter|inline_container|iostream")


def walk_files(root: Path) -> Iterator[Path]:
    """Iterate over the files below a folder; linked folders are entered too, hidden ones not."""
    entered = set()
    for folder, names, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in entered:  # a link that leads back
            names.clear()
            continue
        entered.add(real)
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files))


def files_of(path: Path) -> list[Path]:
    """Return the files of a volume: itself, or those of a DICOM folder, sorted."""
    return sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]


def visible_files(folder: Path, ending: str) -> list[Path]:
    """List the files of a folder with an ending, sorted; hidden ones (a Mac's `._`) are skipped.

    A folder that does not exist has none.
    """
    return sorted(path for path in folder.glob(f"*{ending}") if not path.name.startswith("."))


def case_names(folder: Path, ending: str) -> list[str]:
    """List the names of the cases whose files a folder holds, `CASE<ending>`, sorted."""
    return [path.name.removesuffix(ending) for path in visible_files(folder, ending)]


def files_sha256(files: Iterable[Path]) -> str:
    """SHA-256 of the files' bytes, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


@contextmanager
def replaced_atomically(
    filename: str, then: str = "rerun the command", several_writers: bool = False
) -> Iterator[str]:
    """Yield a name to write to, then move that file over `filename`; on errors keep the old one.

    Args:
        filename: the target.
        then: what to do after freeing space, for the error's message.
        several_writers: other processes and machines may write the same target at once; the last
            one wins.

    Raises:
        OSError: the disk is full or not writable; the message says what survived.
    """
    target, temporary = Path(filename), Path(f"{filename}{TEMPORARY}")
    if several_writers:
        temporary = target.with_name(
            f".{target.name}.{socket.gethostname()}.{os.getpid()}{TEMPORARY}"
        )
    try:
        yield str(temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError) and not WRITER.search(str(error)):
            raise
        survived = (
            f"the previous {target.name} is intact" if target.exists() else "there was none before"
        )
        raise StorageError(
            f"could not write {target} ({error}); {survived}. Free disk space, then {then}"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replaced_atomically(str(path)) as temporary:
        Path(temporary).write_text(text)


def write_csv(rows: Iterable[Any], path: Path) -> None:
    """Write dataclass instances or dicts of one kind, a line each, their fields as columns."""
    content = [row if isinstance(row, dict) else asdict(row) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(content[0]))
        writer.writeheader()
        writer.writerows(content)
