"""Gradients of PRISM's phases, by one process or by two: `gradients_of_ranks` starts this file."""

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.two_ranks import join, start_two


def gradients(store: Path, rank: int, ranks: int) -> dict[str, Tensor]:
    """The gradients of every phase on the first batch, in float64, averaged over ranks."""
    from helpers.pretraining import small_prism_recipe
    from nnunet_fm_pretrain.data.volume_store import VolumeStore
    from nnunet_fm_pretrain.methods.recipes import parse_recipe
    from nnunet_fm_pretrain.methods.registry import get_method

    content = small_prism_recipe(objective={"regions": ["brain", "neck"]})
    objective: Any = get_method("prism").build(parse_recipe(content, "test")).double()
    batch = objective.batches(VolumeStore(store), rank, ranks)[0]
    found = {}
    for phase in objective.all_phases:
        objective.zero_grad()
        objective(batch, 0, phase).total.backward()
        for owner, module in objective.trainable_modules(phase).items():
            for name, parameter in module.named_parameters():
                gradient = parameter.grad
                if ranks > 1:
                    torch.distributed.all_reduce(gradient)
                found[f"{phase} {owner}.{name}"] = gradient / ranks
    return found


def gradients_of_ranks(store: Path, folder: Path) -> dict[str, Tensor]:
    """Start two processes; return their gradients."""
    start_two(__file__, folder, store)
    return load_file(folder / "gradients.safetensors")


def main(folder: Path, store: Path, rank: int) -> None:
    """Write the gradients of both ranks."""
    join(folder, rank)
    found = gradients(store, rank, 2)
    if rank == 0:
        save_file(found, folder / "gradients.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
