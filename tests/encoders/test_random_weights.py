"""Random weights are a function of their seed alone: on every processor, whatever was drawn."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from nnunet_fm.encoders import random_state
from nnunet_fm.encoders.random_weights import (
    PortableDraws,
    build_random,
    build_random_as_torch_does,
)


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, again, other = (random_state("dinov3_test16", s) for s in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(
        first["vit.patch_embed.proj.weight"], other["vit.patch_embed.proj.weight"]
    )


DRAWN = """
from nnunet_fm.encoders import random_state, tensors_sha256
for name in ("dinov3_test16", "dinov2_test14", "volume_testbmmae", "volume_testuniformer"):
    print(tensors_sha256(random_state(name, 0))[:12])
"""


@pytest.mark.parametrize("instructions", ["default", "avx2"])
def test_random_weights_are_the_same_on_every_processor(instructions: str) -> None:
    """The four draw with trunc_normal_, normal_, randn and uniform_ (kaiming_uniform_)."""
    environment = os.environ | {"ATEN_CPU_CAPABILITY": instructions, "PYTHONWARNINGS": "ignore"}
    drawn = subprocess.run(
        [sys.executable, "-c", DRAWN], env=environment, text=True, capture_output=True, check=True
    )
    assert drawn.stdout.split() == ["9e1468ceda31", "45cb95bd225f", "ca93affe790e", "5ebe7218e381"]


def test_random_weights_are_distributed_as_torch_draws_them() -> None:
    """Equal up to rounding; where the draws are others, with the same mean and deviation."""
    ours = build_random("dinov3_test16", 3).state_dict()
    for name, tensor in build_random_as_torch_does("dinov3_test16", 3).state_dict().items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-6, atol=1e-9)
    torch.manual_seed(0)
    with PortableDraws():
        drawn = [nn.init.normal_(torch.empty(100_000), 2.0, 0.5), torch.randn(100_000) * 0.5 + 2]
    for sample in drawn:
        assert sample.dtype == torch.float32
        assert sample.mean().item() == pytest.approx(2, abs=0.01)
        assert sample.std().item() == pytest.approx(0.5, abs=0.01)
        assert (sample > 2.5).float().mean().item() == pytest.approx(0.1587, abs=0.005)
    assert not torch.equal(*drawn)
