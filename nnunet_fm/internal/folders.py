"""Folders that are read, not imported: `trainers` (scanned by nnU-Net), `plans`, `weights`."""

import os
from pathlib import Path

from nnunet_fm.internal.errors import MissingFileError

EXT_TRAINER = "nnUNet_extTrainer"


def folder(name: str, package: Path = Path(__file__).parents[1]) -> Path:
    """Return a folder of a package (e.g. `plans`): inside it, or next to it in a clone."""
    return package / name if (package / name).is_dir() else package.parent / name


def nnunet_folder(name: str) -> Path:
    """Return one of nnU-Net's folders, e.g. `nnUNet_raw`.

    Raises:
        FileNotFoundError: it is not set.
    """
    value = os.environ.get(name)
    if not value:
        raise MissingFileError(f"{name} is not set; type: export {name}=/path/to/{name}")
    return Path(value)


def with_trainers(existing: str | None) -> str:
    """Return the user's value of `nnUNet_extTrainer` with our trainers added."""
    ours = str(folder("trainers"))
    paths = [p for p in (existing or "").split(os.pathsep) if p.strip()]
    return os.pathsep.join(paths if ours in paths else [*paths, ours])


def activate() -> None:
    """Let nnU-Net find our trainers in this Python process and its children."""
    os.environ[EXT_TRAINER] = with_trainers(os.environ.get(EXT_TRAINER))
