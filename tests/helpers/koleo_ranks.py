"""KoLeo of each of two gloo processes: `koleo_of_ranks`, which starts this file."""

import json
import sys
from pathlib import Path

import torch
from torch import Tensor

from helpers.two_ranks import join, start_two


def rows() -> Tensor:
    """CLS tokens of two crops of four slices; the first two slices are those of rank 0.

    The nearest neighbour of every slice is one of the other rank.
    """
    angles = torch.tensor([0.0, 1.0, 0.1, 1.2])
    one = torch.stack([angles.cos(), angles.sin()], dim=1)
    return torch.stack([one, 2 * one])


def koleo_of_ranks(folder: Path) -> list[dict[str, list[float]]]:
    """Start two processes; return of each the losses by `koleo_neighbours`."""
    start_two(__file__, folder)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def main(folder: Path, rank: int) -> None:
    """Write the losses of one rank, and the gradient of its tokens."""
    from helpers.pretraining import small_recipe
    from nnunet_fm_pretrain.methods.braindino.objective import BrainDino
    from nnunet_fm_pretrain.methods.recipes import parse_recipe

    join(folder, rank)
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
