"""Devices of a run."""

import os
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from nnunet_fm_pretrain.engine.recipe import RunRecipe


def make_fabric(
    run: RunRecipe, accelerator: str = "auto", find_unused_parameters: bool = False
) -> Fabric:
    """Set up the devices that torchrun or srun assigned; without a launcher all GPUs, or the CPU.

    Args:
        run: precision of the run.
        accelerator: `auto`, `cpu`, `cuda` or `mps`.
        find_unused_parameters: of DistributedDataParallel; the method asks for it.
    """
    ranks = int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", 1)))
    on_node = os.environ.get("SLURM_NTASKS_PER_NODE", ranks)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", on_node))
    devices: Any = local
    if ranks == 1:
        devices = "auto" if torch.cuda.is_available() and accelerator != "cpu" else 1
    strategy: Any = "auto"
    if ranks > 1 or torch.cuda.device_count() > 1:
        strategy = DDPStrategy(
            broadcast_buffers=False, find_unused_parameters=find_unused_parameters
        )
    return Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=max(1, ranks // local),
        strategy=strategy,
        precision=run.precision,
    )
