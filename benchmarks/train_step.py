"""One training step of ViT-B/16 on two 256x256 slices: the released behaviour against ours.

The two take turns. The released BrainDINO code trains the encoder too, in float32 on the CPU, with
a decoder of transposed convolutions over images. Lower bound by operations per slice (2 x MAC):
released 3 x 83.4 = 250 GFLOP in float32; ours in bfloat16 2 x 44.6 + 3 x 38.8 = 206 with a
learnable fusion (the gradient crosses the encoder, but there are no weight gradients), and 44.6 +
3 x 38.8 = 161 with a fixed one. Decoder `detail` replaces the 38.8 by 6.0: 44.6 + 3 x 6.0 = 63; its
convolutions at full resolution are bound by memory, not by operations. Separate channels pass the
encoder one by one: 4 x 44.6 + 3 x 6.0 = 196. The last line printed is JSON.
"""

import argparse
import json
import statistics
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.patch_encode_decode import LayerNormNd
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor, nn

from measure import Step, paired_ratio, take_turns
from nnunet_fm.encoders import build_encoder
from nnunet_fm.internal import device as devices
from nnunet_fm.network.activation_memory import kept_for_backward, total_bytes
from nnunet_fm.network.device_setup import set_up_for_device
from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.nnunet.trainer import Recipe, parameter_groups

CHANNELS, CLASSES, BATCH, SIDE = 4, 4, 2, 256
RELEASED = "released"
OURS = ("learnable primus", "fixed primus", "fixed detail", "separate detail")
ENCODER = "dinov3_vitb16"
OPTIONS = {"norm_eps": 1e-6, "rope": "bfloat16"}


class ReleasedNetwork(nn.Module):
    """The release's network, all trained (BDS/dinov3/models/primus.py, braindino_trainer.py)."""

    def __init__(self) -> None:
        super().__init__()
        self.to3 = nn.Conv2d(CHANNELS, 3, 1, bias=False)
        self.encoder: Any = build_encoder(ENCODER, drop_path_rate=0.2, **OPTIONS)
        widths = [3072, 1536, 768, 384, 192]
        stages: list[nn.Module] = []
        for i, o in pairwise(widths):
            stages += [nn.ConvTranspose2d(i, o, 2, 2), LayerNormNd(o), nn.GELU()]
        self.decode = nn.Sequential(*stages, nn.Conv2d(widths[-1], CLASSES, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Class logits."""
        return self.decode(torch.cat(self.encoder.features(self.to3(x)), 1))


def released() -> tuple[nn.Module, torch.optim.Optimizer]:
    """The released network and its optimiser: decoder 3e-4, encoder 3e-5, decay on everything."""
    network = ReleasedNetwork().train()
    rest = [p for n, p in network.named_parameters() if not n.startswith("encoder.")]
    groups = [{"params": rest, "lr": 3e-4}, {"params": network.encoder.parameters(), "lr": 3e-5}]
    return network, torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.05)


def ours(fusion: str, decoder: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Our network and optimiser as the trainer sets them up on this CPU."""
    how = {"fusion": fusion, "decoder": decoder}
    network = FrozenEncoderNetwork(CHANNELS, CLASSES, ENCODER, OPTIONS, **how).train()
    cpu = torch.device("cpu")
    set_up_for_device(network, cpu, devices.best_precision(cpu)[0])
    recipe = Recipe()
    return network, torch.optim.AdamW(
        parameter_groups(network, recipe), betas=recipe.betas, fused=True
    )


def batch() -> tuple[Tensor, Tensor]:
    """Random slices and labels, the same for both."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, CHANNELS, SIDE, SIDE, generator=generator)
    return x, torch.randint(0, CLASSES, (BATCH, 1, SIDE, SIDE), generator=generator)


def loss_function() -> nn.Module:
    """nnU-Net's Dice and cross-entropy, as its trainer builds it."""
    dice = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    return DC_and_CE_loss(
        dice, {}, weight_ce=1, weight_dice=1, dice_class=MemoryEfficientSoftDiceLoss
    )


def built(kind: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The network and optimiser of `released`, or of `FUSION DECODER`."""
    return released() if kind == RELEASED else ours(*kind.split())


def make_step(kind: str) -> Step:
    """A whole step: forward, loss, backward, clipping, optimiser."""
    network, optimizer = built(kind)
    (x, target), loss = batch(), loss_function()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(network(x), target).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()

    return step


def saved_mib(kind: str) -> float:
    """MiB kept for the backward pass, per slice."""
    network, _ = built(kind)
    (x, target), loss = batch(), loss_function()
    with kept_for_backward(network) as kept:
        loss(network(x), target)
    return round(total_bytes(kept) / 2**20 / BATCH, 1)


def main() -> None:
    """Measure fusions and decoders and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    reference_saved = saved_mib(RELEASED)
    results = []
    for kind in OURS:
        makers = {name: partial(make_step, name) for name in (RELEASED, kind)}
        seconds = take_turns(makers, rounds)
        fusion, decoder = kind.split()
        results.append(
            {
                "fusion": fusion,
                "decoder": decoder,
                "reference_s": round(statistics.median(seconds[RELEASED]), 3),
                "ours_s": round(statistics.median(seconds[kind]), 3),
                "ratio": paired_ratio(seconds[RELEASED], seconds[kind]),
                "reference_saved_mib": reference_saved,
                "ours_saved_mib": saved_mib(kind),
            }
        )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
