"""Checkpoints of a run: written atomically, the last few kept, read without unpickling code."""

import re
from pathlib import Path
from typing import Any

import torch

from nnunet_fm.encoders.loading.read import CheckpointError
from nnunet_fm.internal.errors import MissingFileError
from nnunet_fm.internal.files import replaced_atomically

FOLDER = "checkpoints"


def checkpoints(run: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    found = [
        (int(m.group(1)), p)
        for p in (run / FOLDER).glob("step_*.pt")
        if (m := re.match(r"step_(\d+)\.pt$", p.name))
    ]
    return [path for _, path in sorted(found)]


def latest(run: Path) -> Path:
    """The newest checkpoint of a run folder, or `run` itself if it is a checkpoint.

    Raises:
        FileNotFoundError: none there.
    """
    if run.is_file():
        return run
    found = checkpoints(run)
    if not found:
        raise MissingFileError(
            f"no checkpoint in {run / FOLDER}; give a run folder of `nnunet-fm pretrain run`"
        )
    return found[-1]


def save(run: Path, step: int, content: dict[str, Any], keep: int) -> Path:
    """Write `content` as the state after `step` steps, then delete all but the last `keep`."""
    path = run / FOLDER / f"step_{step:08d}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_atomically(str(path)) as temporary:
        torch.save(content, temporary)
    for old in checkpoints(run)[:-keep]:
        old.unlink()
    return path


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        CheckpointError: damaged, or not one of ours.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}); delete it, the one before is used"
        ) from None
    if not isinstance(content, dict) or "objective" not in content:
        raise CheckpointError(f"{path} is no checkpoint of `nnunet-fm pretrain run`")
    return content
