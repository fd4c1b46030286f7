"""What holds for every installed pretraining method."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from helpers.pretraining import (
    small_brainfm_recipe,
    small_brainfound_recipe,
    small_mae2d_recipe,
    small_prism_recipe,
    small_recipe,
    small_volta3d_recipe,
)
from nnunet_fm.encoders import build_encoder
from nnunet_fm_pretrain.methods.recipes import parse_recipe
from nnunet_fm_pretrain.methods.registry import get_method, method_names

SMALL: dict[str, Callable[..., dict[str, object]]] = {
    "braindino": small_recipe,
    "brainfm": small_brainfm_recipe,
    "brainfound": small_brainfound_recipe,
    "mae2d": small_mae2d_recipe,
    "prism": small_prism_recipe,
    "volta3d": small_volta3d_recipe,
}
# fixtures; the others read slices
STORES = {"brainfm": "scans", "prism": "acquired", "volta3d": "unit_volumes"}
ALL_MASKED = {"masks": {"probability": 1.0}}


def built(name: str) -> Any:
    content = SMALL[name]()
    objective: Any = content["objective"]
    if name in ("braindino", "brainfound"):
        content["objective"] = {**objective, **ALL_MASKED}
    return get_method(name).build(parse_recipe(content, name))


@pytest.mark.parametrize("name", method_names())
def test_losses_are_finite_and_reach_every_trained_parameter_and_no_other(
    name: str, request: pytest.FixtureRequest
) -> None:
    objective = built(name).train()
    store = request.getfixturevalue(STORES.get(name, "sessions"))
    batch = objective.batches(store, 0, 1)[0]
    trained = [p for p in objective.parameters() if p.requires_grad]
    for phase in objective.all_phases:
        objective.zero_grad()
        modules = objective.trainable_modules(phase)
        owned = {id(p) for m in modules.values() for p in m.parameters() if p.requires_grad}
        if len(objective.all_phases) > 1:  # then the engine freezes what others own
            for parameter in trained:
                parameter.requires_grad_(id(parameter) in owned)
        losses = objective(batch, 0, phase)
        losses.total.backward()
        for parameter in trained:
            parameter.requires_grad_(True)
        assert all(math.isfinite(float(value)) for value in losses.parts.values())
        for key, parameter in objective.named_parameters():
            assert (parameter.grad is not None) == (id(parameter) in owned), key


@pytest.mark.parametrize("name", method_names())
def test_the_export_is_an_architecture_with_exactly_these_tensors(name: str) -> None:
    exported = built(name).export_encoder()
    encoder = build_encoder(exported.architecture, **exported.options)
    extra = {"mask_token"}  # which DINOv2 encoders do without
    tensors = {key for key in exported.tensors if key not in extra}
    assert len(tensors) == len([key for key in encoder.state_dict() if key not in extra])


@pytest.mark.parametrize("name", method_names())
def test_the_weights_depend_on_the_seed_alone(name: str) -> None:
    torch.manual_seed(1)
    first = built(name).state_dict()
    torch.manual_seed(2)
    second = built(name).state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
