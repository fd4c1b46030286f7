"""A training step and a forward pass of each 3-D encoder at 128^3 with 4 channels.

The reference is the same network with the encoder trained too.

python volumes.py                              # all, a JSON line and processes of their own each
python volumes.py --encoder brainiac_vitb16    # one
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch
from torch import nn

from measure import Step
from nnunet_fm.internal import device as devices
from nnunet_fm.network.device_setup import set_up_for_device
from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.nnunet.recipe import Recipe, parameter_groups
from train_step import loss_function

SIDE, CHANNELS, CLASSES = 128, 4, 3
DECODERS = {
    "brainiac_vitb16": "unetr",
    "swin_unetr48": "pyramid",
    "openmind_resencl": "pyramid",
    "amaes_unetb": "pyramid",
    "bmmae_vitb16": "unetr",
    "brainmvp_uniformer": "pyramid",
    "openmind_primusm": "primus3d",
}
MODES = ("learns", "frozen", "frozen, fixed mix")  # the first is the reference


def make(encoder: str, mode: str) -> tuple[FrozenEncoderNetwork, Step]:
    """Build the network as the trainer does on a CPU (reference: float32), and its step."""
    fusion = "fixed" if "fixed" in mode else "learnable"
    channels = range(CHANNELS) if encoder == "bmmae_vitb16" else None  # it knows each by name
    how = {"fusion": fusion, "decoder": DECODERS[encoder], "channels": channels}
    network = FrozenEncoderNetwork(CHANNELS, CLASSES, encoder, **how).train()
    recipe = Recipe(encoder_learning_rate=3e-5 if mode == "learns" else None)
    if mode == "learns":
        network.unfreeze()
    else:
        cpu = torch.device("cpu")
        set_up_for_device(network, cpu, devices.best_precision(cpu)[0])
    optimizer = torch.optim.AdamW(parameter_groups(network, recipe), betas=recipe.betas, fused=True)
    x, loss = torch.randn(1, CHANNELS, SIDE, SIDE, SIDE), loss_function()
    target = torch.randint(0, CLASSES, (1, 1, SIDE, SIDE, SIDE))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(network(x), target).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()

    return network, step


def measure(encoder: str, mode: str, rounds: int) -> dict[str, float]:
    """Median seconds of a step and of a forward pass, and the peak memory of this process."""
    network, step = make(encoder, mode)
    seconds = []
    for _ in range(rounds + 1):  # the first warms up
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    peak = devices.peak_memory(torch.device("cpu")) / 2**30
    network.eval()
    with torch.inference_mode():
        started = time.perf_counter()
        network(torch.randn(1, CHANNELS, SIDE, SIDE, SIDE))
        forward = time.perf_counter() - started
    return {
        "step_s": round(statistics.median(seconds[1:]), 2),
        "forward_s": round(forward, 2),
        "peak_gib": round(peak, 2),
    }


def main() -> None:
    """Measure every mode in a process of its own and print a JSON line per encoder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", choices=tuple(DECODERS), action="append", help="default: all")
    parser.add_argument("--mode", choices=MODES, help="this one only, in this process")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    for encoder in given.encoder or DECODERS:
        if given.mode:
            print(json.dumps(measure(encoder, given.mode, given.rounds)))
            continue
        words = [
            sys.executable,
            *sys.argv[:1],
            "--encoder",
            encoder,
            "--rounds",
            str(given.rounds),
            "--mode",
        ]
        found = {}
        for mode in MODES:
            done = subprocess.run([*words, mode], capture_output=True, text=True)
            lines = done.stdout.splitlines()
            found[mode] = (
                json.loads(lines[-1])
                if lines
                else f"ended with {done.returncode} {done.stderr[-200:]}"
            )
        print(json.dumps({"encoder": encoder, "decoder": DECODERS[encoder], **found}), flush=True)


if __name__ == "__main__":
    main()
