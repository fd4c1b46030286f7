"""Two gloo processes of one file of helpers: `start_two` starts it, `join` is its first step."""

import os
import subprocess
import sys
from pathlib import Path

import torch


def start_two(file: str, folder: Path, *arguments: object) -> None:
    """Run `FILE FOLDER [ARGUMENT ...] RANK` twice at once, and wait for both.

    Args:
        file: the helper's `__file__`.
        folder: where the two find each other.
        arguments: further ones.
    """
    command = [sys.executable, "-W", "ignore", file, str(folder), *map(str, arguments)]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    started = [
        subprocess.Popen([*command, str(rank)], env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in started:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said.decode()[-3000:]


def join(folder: Path, rank: int) -> None:
    """Join the other process."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
