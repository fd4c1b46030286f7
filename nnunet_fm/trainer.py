"""The trainers' behaviour: the only module that overrides nnU-Net's trainer."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nnunet_fm import device as devices
from nnunet_fm.encoders import tensors_sha256
from nnunet_fm.network import FrozenEncoderNetwork
from nnunet_fm.predictor import BatchedPredictor
from nnunet_fm.subsets import TrainSubset

FINAL = "checkpoint_final.pth"


@dataclass(frozen=True)
class Recipe:
    """The numbers of a training (paper section 4.3.1; release braindino_trainer.py).

    Attributes:
        epochs: number of epochs.
        iterations: training batches per epoch.
        validation_iterations: batches per epoch for the pseudo Dice.
        learning_rate: peak, of decoder and fusion.
        weight_decay: on matrices only: none on norms, biases and the fusion.
        betas: of AdamW.
        encoder_learning_rate: None for a frozen encoder.
        layer_decay: factor on the encoder's learning rate from each block to the one below it.
        slim_final: leave the encoder out of the final checkpoint too.
    """

    epochs: int = 100
    iterations: int = 250
    validation_iterations: int = 50
    learning_rate: float = 3e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    encoder_learning_rate: float | None = None
    layer_decay: float = 1.0
    slim_final: bool = False


class SubsetMixin:
    """Trains on the part of the training split that the plans name; the validation split stays whole."""

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's split, its training side cut to `train_subset` of the plans."""
        trainer = cast(nnUNetTrainer, self)
        train, validation = super().do_split()  # type: ignore[misc]
        subset = TrainSubset.from_plans(trainer.plans_manager.plans)
        chosen = subset.select(train)
        if len(chosen) < len(train):
            trainer.print_to_log_file(f"train_subset {subset.to_json()}: {len(chosen)} of {len(train)} training cases")
        return chosen, validation


class RefuseEmptyContinueMixin:
    """`--c` with nothing to continue is an error, where stock nnU-Net would start anew and overwrite."""

    def on_train_start(self) -> None:
        """Check before any data is touched."""
        trainer = cast(nnUNetTrainer, self)
        if trainer.logger.resume and not getattr(self, "continued", False):
            raise FileNotFoundError(
                f"--c was given, but {trainer.output_folder} holds no checkpoint to continue from. "
                "Leave --c out to start this training, or check -tr, -p, configuration and fold"
            )
        super().on_train_start()  # type: ignore[misc]

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Remember that there was something to continue."""
        super().load_checkpoint(filename_or_checkpoint)  # type: ignore[misc]
        self.continued = True


class FrozenEncoderTrainer(SubsetMixin, RefuseEmptyContinueMixin, nnUNetTrainer):
    """nnU-Net's trainer around a frozen encoder. Variants set `recipe` only."""

    recipe: ClassVar[Recipe] = Recipe()

    def initialize(self) -> None:
        """Apply the recipe, build the network as the plans say, then load the encoder and check who it is."""
        recipe = self.recipe
        self.num_epochs, self.num_iterations_per_epoch = recipe.epochs, recipe.iterations
        self.num_val_iterations_per_epoch = recipe.validation_iterations
        self.initial_lr, self.weight_decay = recipe.learning_rate, recipe.weight_decay
        self.enable_deep_supervision = False  # one output
        self.save_every = 1  # slim checkpoints are cheap, and a killed run then loses one epoch at most
        self._check_plans()
        super().initialize()

    def configure_optimizers(self) -> tuple[Optimizer, LRScheduler]:
        """AdamW over what learns. nnU-Net calls this on the built network, before DDP: weights are loaded here."""
        network = self.bare_network
        network.load_encoder()
        if self.recipe.encoder_learning_rate is not None:
            network.unfreeze()
        self._prepare_device(network)
        optimizer = AdamW(parameter_groups(network, self.recipe), betas=self.recipe.betas, **self._optimizer_kernel())
        schedule = LinearDecay(optimizer, self.num_epochs)
        self._report(network)
        return optimizer, schedule

    def _optimizer_kernel(self) -> dict[str, bool]:
        return {"fused": True} if self.device.type in ("cuda", "cpu") else {}

    def _prepare_device(self, network: FrozenEncoderNetwork) -> None:
        precision, reason = devices.best_precision(self.device)
        devices.prepare(network, self.device, precision)
        if precision == "bfloat16":
            self.grad_scaler = None  # bfloat16 has float32's range
        needed = devices.saved_bytes(network, tuple(self.configuration_manager.patch_size), self.batch_size)
        crosses = self.recipe.encoder_learning_rate is not None or network.schedule.learns(0)
        checkpointing = crosses and needed > devices.free_memory(self.device) // 3
        network.use_kernels(gradient_checkpointing=checkpointing)
        self.print_to_log_file(
            f"precision {precision} ({reason}); gradient checkpointing {'on' if checkpointing else 'off'} "
            f"(the encoder would keep {needed >> 20 if crosses else 0} MiB)"
        )

    def _report(self, network: FrozenEncoderNetwork) -> None:
        source = network.encoder_source or {}
        total = sum(p.numel() for p in network.parameters())
        learns = sum(p.numel() for p in network.parameters() if p.requires_grad)
        origin = source.get("file", f"RANDOM weights, seed {source.get('seed')}")
        self.print_to_log_file(f"encoder {source.get('card')} from {origin}, tensor hash {source['sha256'][:12]}")
        self.print_to_log_file(f"{total:,} parameters, {learns:,} learn ({100 * learns / total:.2f} %)")

    def _check_plans(self) -> None:
        name = self.configuration_manager.network_arch_class_name
        if name != f"{FrozenEncoderNetwork.__module__}.{FrozenEncoderNetwork.__name__}":
            raise ValueError(
                f"{type(self).__name__} needs a configuration written by `nnunet-fm plan`; {self.configuration_name} of "
                f"{self.plans_manager.plans_name} names the network {name}. Type `nnunet-fm plan -d ID -c 2d --encoder "
                "NAME|FILE`, then train its configuration with -p FM_..."
            )

    @property
    def bare_network(self) -> FrozenEncoderNetwork:
        """The network without DDP's and torch.compile's wrappers."""
        network = self.network
        if isinstance(network, DistributedDataParallel):
            network = network.module
        if isinstance(network, OptimizedModule):
            network = network._orig_mod
        return cast(FrozenEncoderNetwork, network)

    def on_train_epoch_start(self) -> None:
        """Fix the fusion when its schedule says so."""
        network = self.bare_network
        learns = network.schedule.learns(self.current_epoch)
        if learns != network.fusion.weight.requires_grad:
            network.set_fusion_learns(learns)
            if self.is_ddp:  # DDP waits for the gradient of every parameter it was built with
                self.network = DistributedDataParallel(self.network.module, device_ids=[self.local_rank])
            self.print_to_log_file(f"fusion {'learns' if learns else 'is fixed from here on'}")
        super().on_train_epoch_start()

    def on_train_end(self) -> None:
        """Assert that the encoder is what it was, to the bit."""
        self.assert_encoder_unchanged()
        super().on_train_end()

    def assert_encoder_unchanged(self) -> None:
        """Compare the encoder's hash with the one in the plans.

        Raises:
            RuntimeError: a frozen encoder changed.
        """
        network = self.bare_network
        if not network.frozen or network.encoder_source is None:
            return
        found = tensors_sha256(network.encoder.state_dict())
        if found != network.encoder_source["sha256"]:
            raise RuntimeError(f"the frozen encoder changed: {found} is not {network.encoder_source['sha256']}")

    def save_checkpoint(self, filename: str) -> None:
        """Write beside the target and move it into place, so that a full disk or a kill spares the previous one."""
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        final = os.path.basename(filename) == FINAL
        slim = self.bare_network.frozen and (not final or self.recipe.slim_final)
        with replaced_atomically(filename) as temporary:
            with self.bare_network.slim_state_dict() if slim else nullcontext():
                super().save_checkpoint(temporary)

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Refuse to continue a run that another encoder began."""
        if not self.was_initialized:
            self.initialize()
        checkpoint = filename_or_checkpoint
        if isinstance(checkpoint, str):
            checkpoint = torch.load(checkpoint, map_location="cpu", weights_only=False, mmap=True)
        began = _encoder_hash(checkpoint["init_args"]["plans"], self.configuration_name)
        current = (self.bare_network.encoder_source or {}).get("sha256")
        if began != current:
            raise ValueError(
                f"the checkpoint in {self.output_folder} was trained with encoder {str(began)[:12]}…, the plans "
                f"{self.plans_manager.plans_name} now name {str(current)[:12]}…. Continue with the former plans, or "
                "train anew under another plans name (`nnunet-fm plan -o FM_other`)"
            )
        del checkpoint
        super().load_checkpoint(filename_or_checkpoint)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """nnU-Net's validation with slices and mirrors batched."""
        with _predictor_replaced():
            super().perform_actual_validation(save_probabilities)


class SubsetTrainer(SubsetMixin, RefuseEmptyContinueMixin, nnUNetTrainer):
    """Stock nnU-Net on the plans' part of the training split: the baseline of a data-ratio sweep."""

    schedule: ClassVar[tuple[int, int, int] | None] = None

    def initialize(self) -> None:
        """Shorten the schedule where a variant asks for it: (epochs, iterations, validation iterations)."""
        if self.schedule is not None:
            self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = self.schedule
        super().initialize()

    def save_checkpoint(self, filename: str) -> None:
        """As atomically as the frozen trainers do."""
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        with replaced_atomically(filename) as temporary:
            super().save_checkpoint(temporary)


class LinearDecay(LRScheduler):
    """Learning rate of every group falls linearly to zero; stepped by epoch number, as nnU-Net does."""

    def __init__(self, optimizer: Optimizer, epochs: int) -> None:
        self.epochs = epochs
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        super().__init__(optimizer)

    def step(self, epoch: int | None = None) -> None:
        """Set the rates of epoch `epoch`, counted from 0."""
        factor = 1 - (epoch or 0) / self.epochs
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor


def parameter_groups(network: FrozenEncoderNetwork, recipe: Recipe) -> list[dict[str, Any]]:
    """Decoder matrices with decay; norms, biases and fusion without; the encoder's blocks if it learns."""
    decay, plain = [], [network.fusion.weight]
    for parameter in network.decoder.parameters():
        (decay if parameter.ndim > 1 else plain).append(parameter)
    rate = recipe.learning_rate
    groups: list[dict[str, Any]] = [
        {"params": decay, "lr": rate, "weight_decay": recipe.weight_decay},
        {"params": plain, "lr": rate, "weight_decay": 0.0},
    ]
    if recipe.encoder_learning_rate is not None:
        groups += _encoder_groups(network.encoder, recipe, recipe.encoder_learning_rate)
    return groups


def _encoder_groups(encoder: nn.Module, recipe: Recipe, rate: float) -> Iterator[dict[str, Any]]:
    """Embeddings, each block, final norm: the rate falls by `layer_decay` from each to the one below it."""
    blocks = list(encoder.vit.blocks)  # type: ignore[union-attr, arg-type]
    inside = {id(p) for block in blocks for p in block.parameters()}
    top = [p for name, p in encoder.named_parameters() if id(p) not in inside and ".norm." in name]
    bottom = [p for p in encoder.parameters() if id(p) not in inside and all(p is not t for t in top)]
    for above, parameters in enumerate([top, *(list(b.parameters()) for b in reversed(blocks)), bottom]):
        for matrices in (True, False):
            chosen = [p for p in parameters if (p.ndim > 1) == matrices]
            scale = recipe.layer_decay**above
            yield {"params": chosen, "lr": rate * scale, "weight_decay": recipe.weight_decay if matrices else 0.0}


@contextmanager
def replaced_atomically(filename: str) -> Iterator[str]:
    """Give a name to write to, then move that file over `filename`; on any error the old file stays.

    Raises:
        OSError: the disk is full or not writable; the message says what survived.
    """
    target, temporary = Path(filename), Path(f"{filename}.tmp")
    try:
        yield str(temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        survived = f"the previous {target.name} is intact" if target.exists() else "there was none before"
        raise OSError(
            f"could not write {target} ({error}); {survived}. Free disk space, then continue with --c"
        ) from error


@contextmanager
def _predictor_replaced() -> Iterator[None]:
    """nnU-Net's validation names its predictor at module level: put ours there for the time of the call."""
    original: Callable[..., Any] = stock.nnUNetPredictor
    stock.nnUNetPredictor = BatchedPredictor
    try:
        yield
    finally:
        stock.nnUNetPredictor = original


def _encoder_hash(plans: dict[str, Any], configuration: str) -> str | None:
    architecture = plans["configurations"][configuration].get("architecture", {})
    return (architecture.get("arch_kwargs", {}).get("encoder_source") or {}).get("sha256")
