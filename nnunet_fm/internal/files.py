"""List and hash the files of a folder."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path


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


def size_on_disk(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def delete(path: Path) -> None:
    """Delete a file, or a folder with all it holds."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
