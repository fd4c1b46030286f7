"""Trainings with a seed are bit-equal, also after a kill and with any number of processes."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import (
    NonDetMultiThreadedAugmenter,
)
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from helpers.nnunet import log_of
from helpers.seeded import (
    Bench,
    Short25DTrainer,
    ShortSubsetTrainer,
    ShortTrainer,
    bench,
    equal,
    tensors,
)
from nnunet_fm.internal.threads import torch_threads
from nnunet_fm.nnunet.run_record import read_record, write_record
from nnunet_fm.nnunet.seeded_mixin import SeededMixin


@pytest.fixture
def short(
    dataset: Path, nnunet: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    return bench(dataset, nnunet, tmp_path, monkeypatch)


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
        for seed in (3, None):
            trainer = short.trainer(short.plan(training_seed=seed, output=f"FM_{seed}"), f"{seed}")
            trainer.initialize()
            loader, _ = trainer.get_dataloaders()
            assert torch.get_num_threads() == 2
            assert seen["loaders"] == {1}
            if seed is not None:
                next(loader)
                assert seen["batches"] == {1}


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


OTHERS: dict[str, tuple[type, dict[str, Any]]] = {
    "stock": (ShortSubsetTrainer, {"encoder": "none", "train_ratio": 0.5}),
    "mixed slices": (Short25DTrainer, {"mix_slices": 3, "patch": (4, 64, 64)}),
    "detail": (ShortTrainer, {"decoder": "detail", "patch": (64,), "train_ratio": 0.5}),
}


@pytest.mark.parametrize(("kind", "options"), OTHERS.values(), ids=OTHERS.keys())
def test_other_trainers_repeat_too(short: Bench, kind: type, options: dict[str, Any]) -> None:
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
    assert record.parameters == record.learned_parameters


def test_encoders_with_one_seed_patch_and_batch_get_the_same_batches(short: Bench) -> None:
    common = {"training_seed": 3, "patch": (64,), "intensity": "stock"}
    arms = {
        "fixed": (ShortTrainer, {"fusion": "fixed"}),
        "other encoder": (ShortTrainer, {"encoder": "dinov3_nano8"}),
        "stock": (ShortSubsetTrainer, {"encoder": "none"}),
    }
    batches = []
    for name, (kind, options) in arms.items():
        plans = short.plan(output=f"FM_{name.replace(' ', '_')}", **common | options)
        trainer = short.trainer(plans, name, kind)
        trainer.initialize()
        loader, _ = trainer.get_dataloaders()
        batches.append([next(loader) for _ in range(2)])
    for others in batches[1:]:
        for one, other in zip(batches[0], others, strict=True):
            assert list(one["keys"]) == list(other["keys"])
            assert torch.equal(one["data"], other["data"])
    assert not torch.equal(batches[0][0]["data"], batches[0][1]["data"])


@pytest.mark.parametrize(
    ("change", "said"),
    [({"device": "NVIDIA X"}, "device NVIDIA X, now cpu"), ({"threads": 7}, "threads 7, now 1")],
)
def test_a_training_that_moved_goes_on_and_says_that_it_is_not_bit_equal(
    short: Bench, change: dict, said: str
) -> None:
    plans = short.plan(training_seed=3, output="FM_seed3")
    short.kill(1, plans, "killed")
    trainer = short.trainer(plans, "killed", resume=True)
    fold = Path(trainer.output_folder)
    write_record(replace(read_record(fold), **change), fold)
    trainer.run_training()
    assert read_record(fold).not_repeatable == (said,)
    log = log_of(fold.parent)
    assert f"no longer bit-equal to one that was never interrupted: {said}" in log
    assert "training seed 3: repeats bit for bit on a CPU of this kind" in log
    assert "torch threads: 1" in log


def test_a_seed_with_another_number_of_folds_is_refused(short: Bench) -> None:
    plans = short.plan(training_seed=3, output="FM_seed3")
    splits = short.dataset / "splits_final.json"
    before = splits.read_text() if splits.is_file() else None
    cases = sorted(path.stem for path in (short.dataset / "nnUNetPlans_2d").glob("*.pkl"))
    try:
        splits.write_text(json.dumps([{"train": cases[:4], "val": cases[4:]}] * 5))
        short.kill(1, plans, "killed")
        splits.write_text(json.dumps([{"train": cases[:3], "val": cases[3:]}] * 2))
        with pytest.raises(ValueError, match=r"was trained on other data \(no longer: "):
            short.train(plans, "killed", resume=True)
    finally:
        splits.unlink()
        if before is not None:
            splits.write_text(before)


def test_a_seed_that_is_no_number_is_refused_before_training(short: Bench) -> None:
    plans = short.plan(training_seed=3, output="FM_seed3") | {"training_seed": "three"}
    with pytest.raises(ValueError, match="training_seed of the plans is 'three'; allowed: a whole"):
        short.train(plans, "refused")


def test_another_seed_in_the_plans_is_another_run(short: Bench) -> None:
    plans = short.plan(training_seed=3, output="FM_seed3")
    short.kill(1, plans, "killed")
    with pytest.raises(ValueError, match="trained with other plans .* different: training_seed"):
        short.trainer(plans | {"training_seed": 4}, "killed", resume=True)


def test_training_without_a_seed_is_nnunets_own(short: Bench) -> None:
    trainer = short.train(short.plan(output="FM_unseeded"), "unseeded", processes=1)
    assert isinstance(trainer.dataloader_train, NonDetMultiThreadedAugmenter)
    record = read_record(Path(trainer.output_folder))
    assert (record.training_seed, record.not_repeatable) == (None, ())


@dataclass
class Saved:
    """What a trainer needs to decide on the best checkpoint."""

    _best_ema: float | None
    latest: float
    output_folder: str = "fold_0"
    current_epoch: int = 2
    saved: tuple[tuple[str, int], ...] = ()

    @property
    def logger(self) -> "Saved":
        return self

    def get_value(self, key: str, step: int) -> float:
        assert (key, step) == ("ema_fg_dice", -1)
        return self.latest

    def save_checkpoint(self, filename: str) -> None:
        self.saved += ((filename, self.current_epoch),)


@pytest.mark.parametrize(
    ("best", "latest", "is_best"), [(0.5, 0.6, True), (0.6, 0.6, False), (None, 0.1, True)]
)
def test_a_resumed_training_decides_whether_its_last_epoch_was_the_best(
    best: float | None, latest: float, is_best: bool
) -> None:
    trainer = Saved(best, latest)
    SeededMixin._decide_on_best_checkpoint(trainer)
    assert trainer.saved == ((("fold_0/checkpoint_best.pth", 1),) if is_best else ())
    assert (trainer._best_ema, trainer.current_epoch) == (max(best or 0, latest), 2)
