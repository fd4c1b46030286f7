"""The seed of a training in plans, and the numbers that are derived from it."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.plans import plan
from nnunet_fm.nnunet.run_identity import plan_differences
from nnunet_fm.nnunet.run_record import RunRecord, rounding_differences
from nnunet_fm.nnunet.training_seed import (
    Draw,
    TrainingSeed,
    deterministic_algorithms,
)


def draw_all() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(1))


def test_only_seeded_plans_have_the_key_and_the_suffix(stock_plans: Path) -> None:
    plans, _ = plan(stock_plans, encoder="dinov3_test16", patch=(64,))
    assert "training_seed" not in plans
    seeded, said = plan(stock_plans, encoder="dinov3_test16", patch=(64,), training_seed=3)
    assert (seeded["plans_name"], seeded["training_seed"]) == ("FM_dinov3_test16_random_t3", 3)
    assert "training seed 3: on the CPU, trainings are bit-equal" in said
    part, _ = plan(stock_plans, encoder="none", train_ratio=0.5, subset_seed=1, training_seed=0)
    assert (part["plans_name"], part["training_seed"]) == ("FM_none_r050_s1_t0", 0)
    derived, _ = plan(
        stock_plans, encoder="none", source_plans=part["plans_name"], output="FM_derived"
    )
    assert "training_seed" not in derived


def test_the_seed_identifies_a_run(stock_plans: Path) -> None:
    plans, _ = plan(stock_plans, encoder="dinov3_test16", patch=(64,))
    assert plan_differences(plans, plans | {"training_seed": 0}, "2d_fm64") == ["training_seed"]
    assert plan_differences(plans, plans | {"training_seed": None}, "2d_fm64") == []


@pytest.mark.parametrize("value", ["3", 1.5, True, -1, 2**32, [3]])
def test_another_kind_of_seed_in_plans_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"training_seed of the plans is .* allowed: a whole"):
        TrainingSeed.from_plans({"training_seed": value})


def test_numbers_depend_on_everything_that_they_are_for_and_on_nothing_else() -> None:
    plans = {"training_seed": 3, "train_subset": {"ratio": 1.0, "seed": 42, "rule": "nested"}}
    seed = TrainingSeed.from_plans(plans)
    before = random.getstate(), torch.get_rng_state()
    with seed.seeded(Draw.TRAINING_BATCH, 7):
        drawn = draw_all()
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    draw_all()
    with seed.seeded(Draw.TRAINING_BATCH, 7):
        assert draw_all() == drawn
    others = [
        (seed, Draw.TRAINING_BATCH, 8),
        (seed, Draw.VALIDATION_BATCH, 7),
        (TrainingSeed(4, 42), Draw.TRAINING_BATCH, 7),
        (TrainingSeed(3, 43), Draw.TRAINING_BATCH, 7),
        (TrainingSeed.from_plans(plans, rank=1), Draw.TRAINING_BATCH, 7),
    ]
    for other, what, number in others:
        with other.seeded(what, number):
            assert all(one != two for one, two in zip(draw_all(), drawn, strict=True))


def test_torch_is_deterministic_for_the_time_of_a_training() -> None:
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    with deterministic_algorithms():
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.backends.cudnn.benchmark
    after = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    assert after == before


def test_what_makes_a_resumed_training_round_in_another_way() -> None:
    versions = ({"torch": "2.9.1"},)
    former = RunRecord(device="cpu", threads=2, precision="float32", versions=versions)
    assert rounding_differences(former, former) == ()
    now = RunRecord(device="cpu", threads=4, precision="float32", versions=({"torch": "2.9.2"},))
    assert rounding_differences(former, now) == (
        "versions torch 2.9.1, now torch 2.9.2",
        "threads 2, now 4",
    )
    gpu = RunRecord(device="NVIDIA H100", threads=1, precision="bfloat16", versions=versions)
    assert rounding_differences(former, gpu) == (
        "device cpu, now NVIDIA H100",
        "precision float32, now bfloat16",
    )
