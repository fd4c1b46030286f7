"""Trainings with a seed are bit-equal, also after a kill and with any number of processes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from helpers.seeded import (
    Bench,
    Short25DTrainer,
    ShortSubsetTrainer,
    bench,
    equal,
    tensors,
)
from nnunet_fm.internal.threads import torch_threads
from nnunet_fm.nnunet.run_record import read_record


@pytest.fixture
def short(
    planned: Path, nnunet: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    return bench(planned, nnunet, tmp_path, monkeypatch)


def test_a_seeded_training_repeats_with_any_number_of_processes(short: Bench) -> None:
    plans = short.plan(training_seed=3, output="FM_seed3")
    first = short.train(plans, "first")
    for processes in (1, 2):
        torch.manual_seed(processes)
        np.random.seed(processes)
        other = short.train(plans, f"with {processes}", processes=processes)
        assert equal(tensors(first), tensors(other))
        assert equal(tensors(first, "best"), tensors(other, "best"))
    assert not torch.are_deterministic_algorithms_enabled()
    another = short.train(short.plan(training_seed=4, output="FM_seed4"), "another")
    assert not equal(tensors(first), tensors(another))


def test_batches_are_made_with_one_thread(short: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked process hangs in its first product otherwise, and sums differ by rounding."""
    seen = {"batches": set[int](), "loaders": set[int]()}
    make_batch, make_loaders = nnUNetDataLoader.generate_train_batch, nnUNetTrainer.get_dataloaders

    def watched_batch(loader: nnUNetDataLoader) -> dict[str, Any]:
        seen["batches"].add(torch.get_num_threads())
        return make_batch(loader)

    def watched_loaders(trainer: nnUNetTrainer) -> tuple[Any, Any]:
        seen["loaders"].add(torch.get_num_threads())
        return make_loaders(trainer)

    monkeypatch.setattr(nnUNetDataLoader, "generate_train_batch", watched_batch)
    monkeypatch.setattr(nnUNetTrainer, "get_dataloaders", watched_loaders)
    with torch_threads(2):
        short.train(short.plan(training_seed=3, output="FM_seed3"), "seeded")
        assert torch.get_num_threads() == 2
    assert seen == {"batches": {1}, "loaders": {1}}
    with torch_threads(2):
        short.train(short.plan(output="FM_none"), "unseeded", processes=1)
    assert seen["loaders"] == {1}


@pytest.mark.parametrize(("epoch", "processes"), [(1, 2), (2, 0)])
def test_a_killed_training_goes_on_as_if_undisturbed(
    short: Bench, epoch: int, processes: int
) -> None:
    plans = short.plan(training_seed=3, output="FM_seed3")
    undisturbed = short.train(plans, "undisturbed")
    short.kill(epoch, plans, "killed", processes=processes)
    resumed = short.train(plans, "killed", processes=1, resume=True)
    assert equal(tensors(undisturbed), tensors(resumed))
    assert equal(tensors(undisturbed, "best"), tensors(resumed, "best"))
    assert read_record(Path(resumed.output_folder)).not_repeatable == ()


@pytest.mark.parametrize("kind", [ShortSubsetTrainer, Short25DTrainer])
def test_other_trainers_repeat_too(short: Bench, kind: type) -> None:
    if kind is ShortSubsetTrainer:
        options = {"encoder": "none", "train_ratio": 0.5}
    else:
        options = {"mix_slices": 3, "patch": (4, 64, 64)}
    plans = short.plan(training_seed=5, output=f"FM_{kind.__name__}", **options)
    undisturbed = short.train(plans, "undisturbed", kind)
    short.kill(1, plans, "killed", kind)
    resumed = short.train(plans, "killed", kind, resume=True)
    assert equal(tensors(undisturbed), tensors(resumed))


def test_arms_of_a_decoder_start_alike_and_differ_once_gates_open(short: Bench) -> None:
    trained, starts = {}, {}
    for tokens in ("on", "off"):
        options = {"decoder": "detail", "tokens": tokens, "detail_width": 4, "patch": (64,)}
        plans = short.plan(training_seed=3, output=f"FM_{tokens}", **options)
        trainer = short.trainer(plans, f"start {tokens}")
        trainer.initialize()
        starts[tokens] = trainer.network.decoder.state_dict()
        trained[tokens] = short.train(plans, tokens)
    assert all(torch.equal(starts["on"][name], value) for name, value in starts["off"].items())
    on, off = (tensors(trained[tokens]) for tokens in ("on", "off"))
    gates = [value for name, value in on.items() if name.endswith(".gate") and "network" in name]
    assert len(gates) == 5
    assert all(value.abs().max() > 0 for value in gates)
    assert not equal({name: on[name] for name in off if "network" in name}, off)
    record = read_record(Path(trained["off"].output_folder))
    assert record.encoder.endswith("not computed (tokens off)")
