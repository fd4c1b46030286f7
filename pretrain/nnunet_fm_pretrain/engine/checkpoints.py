"""Checkpoints of a run: written atomically, the last few kept, read without unpickling code."""

import re
from pathlib import Path
from typing import Any

import torch

from nnunet_fm.encoders.loading.read import CheckpointError
from nnunet_fm.internal.atomic_files import replaced_atomically
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.torch_files import load_tensors

FOLDER = "checkpoints"
NAME = re.compile(r"step_\d+\.pt")
KEYS = ("step", "recipe", "store", "subjects", "licence", "objective", "optimisers")


def checkpoints(run: Path) -> list[Path]:
    """List the complete checkpoints of a run, oldest first."""
    files = (run / FOLDER).glob("step_*.pt")
    return sorted((f for f in files if NAME.fullmatch(f.name)), key=_step)


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step_"))


def latest(run: Path) -> Path:
    """Return the newest checkpoint of a run folder, or `run` itself if it is a file.

    Raises:
        FileNotFoundError: the folder holds none.
    """
    if run.is_file():
        return run
    saved = checkpoints(run)
    if not saved:
        raise MissingFileError(
            f"no checkpoint in {run / FOLDER}; give a run folder of `nnunet-fm pretrain run`"
        )
    return saved[-1]


def save(run: Path, step: int, content: dict[str, Any], keep: int) -> Path:
    """Write `content` as the state after `step` steps, then delete all but the last `keep`."""
    path = run / FOLDER / f"step_{step:08d}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_atomically(path) as temporary:
        torch.save(content, temporary)
    for old in checkpoints(run)[:-keep]:
        old.unlink()
    return path


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint, of this version or of version 0.1.

    Raises:
        CheckpointError: damaged, or not written by `pretrain run`.
    """
    if not (path.parent.name == FOLDER and NAME.fullmatch(path.name)):
        remedy = "give the folder of a run, or a file of its folder checkpoints"
    else:
        before = [p.name for p in checkpoints(path.parent.parent) if _step(p) < _step(path)]
        then = f"continues from {before[-1]}" if before else "begins anew, as there is none before"
        remedy = f"delete the file, and the run {then}"
    try:
        content = load_tensors(path)
    except InputError as error:
        raise CheckpointError(f"{error}; {remedy}") from None
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__}); {remedy}") from None
    missing = [key for key in KEYS if not isinstance(content, dict) or key not in content]
    if len(missing) == len(KEYS):
        raise CheckpointError(f"{path} is not a checkpoint of `nnunet-fm pretrain run`; {remedy}")
    if missing:
        raise CheckpointError(f"{path} is damaged: it lacks {', '.join(missing)}; {remedy}")
    if "bad_steps" in content:  # the name in version 0.1
        content["skipped_steps"] = content.pop("bad_steps")
    return content
