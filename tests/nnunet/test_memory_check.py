"""Gradient checkpointing by the free memory, and training steps that do not fit."""

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_fm.network.frozen import FrozenEncoderNetwork
from nnunet_fm.nnunet.memory_check import UNKNOWN_MEMORY, MemoryCheck, MemoryDecision


def test_a_patch_that_cannot_fit_is_refused_with_one_that_can(
    in_process: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def made() -> Any:
        """A trainer whose activations, and not the copies of its weights, take the memory."""
        trainer = in_process("FrozenDinoTrainerTest")
        trainer.configuration_manager.configuration["batch_size"] = 32
        trainer.initialize()
        return trainer

    trainer = made()
    trainer.bare_network.use_kernels(gradient_checkpointing=True)
    needed = trainer._memory_check().saved_bytes((48, 48))
    monkeypatch.setattr("nnunet_fm.internal.device.free_memory", lambda device: 9 * needed // 10)
    message = (
        r"patch 48x48 in batches of 32 keeps .* GiB are free. Nearest patch that fits: 32x32\."
    )
    small = made()  # enough for validation, which takes a tile at a time
    with pytest.raises(ValueError, match=message):
        small.on_train_start()
    monkeypatch.setattr(
        "nnunet_fm.internal.device.free_memory", lambda device: None
    )  # the system does not say
    in_process("FrozenDinoTrainerTest").on_train_start()
    shutil.rmtree(trainer.output_folder)


def test_a_step_out_of_memory_names_a_patch_and_other_errors_pass(
    in_process: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = in_process("FrozenDinoTrainerTest")
    trainer.initialize()
    for error, expected in (
        (torch.OutOfMemoryError("CUDA out of memory"), MemoryError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), MemoryError),
        (RuntimeError("something else"), RuntimeError),
    ):
        monkeypatch.setattr(nnUNetTrainer, "train_step", Raise(error))
        with pytest.raises(
            expected, match="Nearest patch that fits: 32x32" if expected is MemoryError else "else"
        ):
            trainer.train_step({})
    shutil.rmtree(trainer.output_folder)


class Raise:
    """A function that fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, *_: Any) -> None:
        raise self.error


def decide(
    free: int | None, wanted: bool | None, monkeypatch: pytest.MonkeyPatch, gradient: bool = True
) -> tuple[MemoryDecision, MemoryCheck]:
    monkeypatch.setattr("nnunet_fm.internal.device.free_memory", lambda device: free)
    network = FrozenEncoderNetwork(4, 3, "dinov3_test16").train()
    check = MemoryCheck(network, torch.device("cpu"), 4, (64, 64), 2)
    return check.decide(wanted, gradient), check


def test_checkpointing_is_switched_on_above_a_third_of_the_free_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decision, check = decide(UNKNOWN_MEMORY, None, monkeypatch)
    plain = check.saved_bytes((64, 64))
    assert not decision.gradient_checkpointing
    assert decision.message == (
        f"the forward pass keeps {plain >> 20} MiB of {UNKNOWN_MEMORY >> 20} free"
    )
    decision, _ = decide(3 * plain, None, monkeypatch)
    assert not decision.gradient_checkpointing
    decision, check = decide(3 * plain - 3, None, monkeypatch)
    assert decision.gradient_checkpointing
    assert decision.message.endswith(f"gradient checkpointing on, without it {plain >> 20}")
    assert check.saved_bytes((64, 64)) < plain
    assert decision.problem == ""


def test_what_the_user_or_the_network_decides_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not decide(1, False, monkeypatch)[0].gradient_checkpointing
    assert decide(UNKNOWN_MEMORY, True, monkeypatch)[0].gradient_checkpointing
    without_gradient, _ = decide(1, True, monkeypatch, gradient=False)
    assert not without_gradient.gradient_checkpointing
    assert "2 keeps" in without_gradient.problem  # 1 byte is free


def test_unknown_memory_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    decision, check = decide(None, None, monkeypatch)
    assert "MiB of unknown free" in decision.message
    assert decision.problem == ""

    def data_dependent(*_: Any) -> int:
        raise RuntimeError("data-dependent shapes")

    monkeypatch.setattr("nnunet_fm.nnunet.memory_check.kept_bytes", data_dependent)
    decision = check.decide(None, True)
    assert decision.message.startswith("the forward pass saves an unknown amount of memory")
    assert (decision.gradient_checkpointing, decision.problem) == (False, "")
    assert "patch (64, 64) in batches of 2 needs more memory" in check.oom_message()


def test_the_nearest_patch_fits_the_decoder_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens of 8 pixels, and a U-Net down to 1/16."""
    network = FrozenEncoderNetwork(
        4, 3, "dinov3_nano8", decoder="detail", fusion="fixed", decoder_options={"levels": 5}
    )
    check = MemoryCheck(network, torch.device("cpu"), 4, (96, 96), 2)
    enough = int(check.saved_bytes((64, 64)) / 0.59)
    assert "Nearest patch that fits: 64x64" in check.oom_message(enough)
