"""KoLeo of each of two gloo processes: `koleo_of_ranks`, which starts this file."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor


def rows() -> Tensor:
    """CLS tokens of two crops of four slices; the first two slices are those of rank 0.

    The nearest neighbour of every slice is one of the other rank.
    """
    angles = torch.tensor([0.0, 1.0, 0.1, 1.2])
    one = torch.stack([angles.cos(), angles.sin()], dim=1)
    return torch.stack([one, 2 * one])


def koleo_of_ranks(folder: Path) -> list[dict[str, list[float]]]:
    """Start two processes; return of each the losses by `koleo_neighbours`."""
    command = [sys.executable, "-W", "ignore", __file__, str(folder)]
    tests = str(Path(__file__).parents[1])
    started = [
        subprocess.Popen([*command, str(rank)], env=_environment(tests), stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in started:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode()[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def _environment(tests: str) -> dict[str, str]:
    import os

    paths = os.pathsep.join([tests, *filter(None, sys.path)])
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}


def main(folder: Path, rank: int) -> None:
    """Write the losses of one rank, and the gradient of its tokens."""
    from helpers.pretraining import small_recipe
    from nnunet_fm_pretrain.methods.braindino.objective import BrainDino
    from nnunet_fm_pretrain.methods.recipes import parse_recipe

    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    found = {}
    for neighbours in ("rank", "all"):
        content = small_recipe(objective={"koleo_neighbours": neighbours, "method": "braindino"})
        made = BrainDino(parse_recipe(content, "test"))  # type: ignore[arg-type]
        own = rows()[:, 2 * rank : 2 * rank + 2].clone().requires_grad_()
        loss = made._koleo(own)
        loss.backward()
        found[neighbours] = [float(loss), *own.grad[0].flatten().tolist()]  # type: ignore[index]
    (folder / f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
