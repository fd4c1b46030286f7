"""Two gloo processes train as nnU-Net's DDP does, through the switch to a fixed fusion."""

import os
import socket
from pathlib import Path

import torch
import torch.multiprocessing as mp
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.nnunet.recipe import Recipe, parameter_groups


def work(rank: int, port: int, out: str, tuned: bool) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(0)
    network = FrozenEncoderNetwork(
        2, 2, "dinov3_test16", taps=[0, 2]
    )  # block 3 lies above the last tap
    recipe = Recipe(encoder_learning_rate=1e-4 if tuned else None, learning_rate=0.01)
    if tuned:
        network.unfreeze()
    optimizer = torch.optim.AdamW(parameter_groups(network, recipe))
    wrapped = DistributedDataParallel(network)
    for step in range(4):
        if step == 2 and not tuned:
            network.set_fusion_learns(False)
            wrapped = DistributedDataParallel(network)  # as the trainer does
        torch.manual_seed(100 * step + rank)
        optimizer.zero_grad()
        wrapped(torch.randn(1, 2, 32, 32)).square().mean().backward()
        optimizer.step()
    torch.save(network.state_dict(), Path(out) / f"{rank}.pt")
    distributed.destroy_process_group()


def spawn(out: Path, tuned: bool) -> list[dict[str, torch.Tensor]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (port, str(out), tuned), nprocs=2)
    return [torch.load(out / f"{rank}.pt") for rank in range(2)]


def test_ranks_stay_equal_while_frozen_and_tuned(tmp_path: Path) -> None:
    for tuned in (False, True):
        first, second = spawn(tmp_path, tuned)
        assert all(torch.equal(first[k], second[k]) for k in first)
        torch.manual_seed(0)
        start = FrozenEncoderNetwork(2, 2, "dinov3_test16", taps=[0, 2]).state_dict()
        moved = {k for k in first if not torch.equal(first[k], start[k])}
        assert any(k.startswith("encoder.") for k in moved) == tuned
        assert {"fusion.weight", "decoder.head.weight"} <= moved
