"""The trainers' behaviour: the only module that overrides nnU-Net's trainer."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from typing import Any, ClassVar, cast

import torch
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.helpers import empty_cache
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nnunet_fm.encoders import tensors_sha256
from nnunet_fm.internal import device as devices
from nnunet_fm.internal.errors import FailedRunError, InputError, MissingFileError, OutOfMemoryError
from nnunet_fm.internal.files import replaced_atomically
from nnunet_fm.internal.messages import some
from nnunet_fm.network.activation_memory import does_not_fit, kept_bytes
from nnunet_fm.network.device_setup import set_up_for_device
from nnunet_fm.network.frozen import NETWORK, NETWORK_25D, NETWORKS, FrozenEncoderNetwork
from nnunet_fm.nnunet.predictor import BatchedPredictor, bare_network
from nnunet_fm.nnunet.recipe import LinearDecay, Recipe, parameter_groups
from nnunet_fm.nnunet.run_identity import differences
from nnunet_fm.nnunet.train_subset import TrainSubset

FINAL = "checkpoint_final.pth"
THEN = "continue with --c"
UNKNOWN_MEMORY = 8 << 30  # bytes, where the system does not say
DISTRIBUTIONS = ("nnunet-fm", "nnunetv2", "torch", "timm")


class SubsetMixin:
    """Trains on the part of the training split that the plans name; the validation split stays whole."""

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's split, its training side cut to `train_subset` of the plans."""
        trainer = cast(nnUNetTrainer, self)
        train, validation = super().do_split()  # type: ignore[misc]
        subset = TrainSubset.from_plans(trainer.plans_manager.plans)
        chosen = subset.select(train)
        if len(chosen) < len(train):
            trainer.print_to_log_file(
                f"train_subset {subset.to_json()}: {len(chosen)} of {len(train)} training cases"
            )
        return chosen, validation


class MeasuredMixin:
    """Says in the log with what a network was trained, and how much memory that took."""

    def on_train_start(self) -> None:
        """Versions, for whoever compares runs later."""
        trainer = cast(nnUNetTrainer, self)
        if not trainer.was_initialized:
            trainer.initialize()
        learns = sum(p.numel() for p in trainer.network.parameters() if p.requires_grad)
        total = sum(p.numel() for p in trainer.network.parameters())
        trainer.print_to_log_file(
            f"{total:,} parameters, {learns:,} learn ({100 * learns / total:.2f} %)"
        )
        trainer.print_to_log_file(
            "versions: " + ", ".join(f"{name} {version(name)}" for name in DISTRIBUTIONS)
        )
        super().on_train_start()  # type: ignore[misc]

    def on_train_end(self) -> None:
        """Peak memory of the training, without the validation that follows."""
        trainer = cast(nnUNetTrainer, self)
        super().on_train_end()  # type: ignore[misc]
        peak, what = (
            devices.peak_memory(trainer.device),
            "GPU" if trainer.device.type == "cuda" else "process",
        )
        trainer.print_to_log_file(f"peak memory: {peak} bytes ({what})")


class SafeContinueMixin:
    """`--c` continues the run that the plans describe, or is an error.

    Stock nnU-Net starts anew, and overwrites, where there is no checkpoint, and does not look at
    what began a run.
    """

    continued = False

    def on_train_start(self) -> None:
        """Check before any data is touched."""
        trainer = cast(nnUNetTrainer, self)
        if trainer.logger.resume and not self.continued:
            raise MissingFileError(
                f"--c was given, but {trainer.output_folder} holds no checkpoint to continue from. "
                "Leave --c out to start this training, or check -tr, -p, configuration and fold"
            )
        super().on_train_start()  # type: ignore[misc]

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Refuse a checkpoint that other plans began: another encoder, other taps, another subset."""
        trainer = cast(nnUNetTrainer, self)
        checkpoint = filename_or_checkpoint
        if isinstance(checkpoint, str):
            checkpoint = torch.load(checkpoint, map_location="cpu", weights_only=False, mmap=True)
        began, now = checkpoint["init_args"]["plans"], trainer.plans_manager.plans
        if different := differences(began, now, trainer.configuration_name):
            raise InputError(
                f"the checkpoint in {trainer.output_folder} was trained with other plans than "
                f"{trainer.plans_manager.plans_name} is now; different: {some(different)}. Restore the former plans, "
                "or train anew under another plans name (nnunet-fm plan ... -o FM_other)"
            )
        del checkpoint
        super().load_checkpoint(filename_or_checkpoint)  # type: ignore[misc]
        self.continued = True


class FrozenEncoderTrainer(SubsetMixin, SafeContinueMixin, MeasuredMixin, nnUNetTrainer):
    """nnU-Net's trainer around a frozen encoder. Variants set `recipe` only."""

    recipe: ClassVar[Recipe] = Recipe()
    networks: ClassVar[tuple[str, ...]] = NETWORKS
    network: Any
    encoder_gone: FileNotFoundError | None = None
    too_large: str = ""  # only for training: prediction takes a tile at a time

    def initialize(self) -> None:
        """Apply the recipe, build the network as the plans say, then load the encoder and check who it is."""
        recipe = self.recipe
        self.num_epochs, self.num_iterations_per_epoch = recipe.epochs, recipe.iterations
        self.num_val_iterations_per_epoch = recipe.validation_iterations
        self.initial_lr, self.weight_decay = recipe.learning_rate, recipe.weight_decay
        self.enable_deep_supervision = False  # one output
        self.save_every = (
            1  # slim checkpoints are cheap, and a killed run then loses one epoch at most
        )
        self._check_plans()
        super().initialize()

    def configure_optimizers(self) -> tuple[Optimizer, LRScheduler]:
        """AdamW over what learns. nnU-Net calls this on the built network, before DDP: weights are loaded here."""
        network = self.bare_network
        try:
            network.load_encoder()
        except (
            FileNotFoundError
        ) as error:  # a complete checkpoint can be validated without the file
            self.encoder_gone = error
        if self.recipe.encoder_learning_rate is not None:
            network.unfreeze()
        self._prepare_device(network)
        optimizer = AdamW(
            parameter_groups(network, self.recipe),
            betas=self.recipe.betas,
            **self._optimizer_kernel(),
        )
        schedule = LinearDecay(optimizer, self.num_epochs)
        self._report(network)
        return optimizer, schedule

    def _optimizer_kernel(self) -> dict[str, bool]:
        return {"fused": True} if self.device.type in ("cuda", "cpu") else {}

    def _prepare_device(self, network: FrozenEncoderNetwork) -> None:
        precision, reason = devices.best_precision(self.device)
        set_up_for_device(network, self.device, precision)
        if precision == "bfloat16":
            self.grad_scaler = None  # bfloat16 has float32's range
        self._choose_checkpointing(network)
        self.print_to_log_file(f"precision {precision} ({reason})")

    def _choose_checkpointing(self, network: FrozenEncoderNetwork) -> None:
        """Recompute the encoder's activations where keeping them takes much of the memory; note what cannot fit."""
        free, wanted = devices.free_memory(self.device), self.recipe.gradient_checkpointing
        crosses = self.recipe.encoder_learning_rate is not None or network.schedule.learns(0)
        patch = tuple(self.configuration_manager.patch_size)
        network.use_kernels(gradient_checkpointing=bool(wanted and crosses))
        try:
            kept = whole = self._kept_bytes(patch)
        except RuntimeError as error:  # of an encoder of the user's whose shapes depend on its data
            self.print_to_log_file(f"what the forward pass keeps cannot be told ({error})")
            return
        if wanted is None and crosses and whole > (free or UNKNOWN_MEMORY) // 3:
            network.use_kernels(gradient_checkpointing=True)
            kept = self._kept_bytes(patch)
        if free is not None and kept > free:
            self.too_large = self._out_of_memory(free)
        self.print_to_log_file(
            f"the forward pass keeps {kept >> 20} MiB of {'unknown' if free is None else free >> 20} free"
            + (f"; gradient checkpointing on, without it {whole >> 20}" if kept < whole else "")
        )

    def _kept_bytes(self, patch: tuple[int, ...]) -> int:
        return kept_bytes(self.bare_network, self.num_input_channels, patch, self.batch_size)

    def _out_of_memory(self, free: int) -> str:
        patch, step = tuple(self.configuration_manager.patch_size), 2**self.bare_network.stages
        try:
            return does_not_fit(self._kept_bytes, patch, step, self.batch_size, free)
        except RuntimeError:  # as above
            return f"patch {patch} in batches of {self.batch_size} needs more memory than there is"

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A step that runs out of memory says which patch would have fitted."""
        try:
            return cast(dict[str, Any], super().train_step(batch))
        except RuntimeError as error:  # torch.OutOfMemoryError on GPUs
            if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(
                error
            ):
                raise
        self.optimizer.zero_grad(
            set_to_none=True
        )  # outside the handler, which holds on to the failed step's memory
        empty_cache(self.device)
        raise OutOfMemoryError(
            self._out_of_memory(devices.free_memory(self.device) or UNKNOWN_MEMORY)
        )

    def _report(self, network: FrozenEncoderNetwork) -> None:
        source = network.source
        if source is not None:
            self.print_to_log_file(
                f"encoder {source.card} from {source.origin}, tensor hash {source.sha256[:12]}"
            )

    def _check_plans(self) -> None:
        name = self.configuration_manager.network_arch_class_name
        if name not in self.networks:
            mixing = " --mix-slices 3" if NETWORK not in self.networks else ""
            raise InputError(
                f"{type(self).__name__} needs a configuration written by `nnunet-fm plan{mixing}`; "
                f"{self.configuration_name} of {self.plans_manager.plans_name} names the network {name}. Type "
                f"`nnunet-fm plan -d ID -c 2d --encoder NAME|FILE{mixing}`, then train its configuration with -p FM_..."
            )

    @property
    def bare_network(self) -> FrozenEncoderNetwork:
        """The network without DDP's and torch.compile's wrappers."""
        return cast(FrozenEncoderNetwork, bare_network(self.network))

    def on_train_start(self) -> None:
        """Assert that the encoder is the one that the plans name, also after --c or -pretrained_weights."""
        if not self.was_initialized:
            self.initialize()
        if self.encoder_gone:
            raise self.encoder_gone
        if self.too_large:
            raise InputError(self.too_large)
        self.assert_encoder_unchanged()
        super().on_train_start()

    def on_train_epoch_start(self) -> None:
        """Fix the fusion when its schedule says so."""
        network = self.bare_network
        learns = network.schedule.learns(self.current_epoch)
        if learns != network.fusion.weight.requires_grad:
            network.set_fusion_learns(learns)
            if self.is_ddp:  # DDP waits for the gradient of every parameter it was built with
                self.network = DistributedDataParallel(
                    self.network.module, device_ids=[self.local_rank]
                )
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
        if not network.frozen or network.source is None:
            return
        found = tensors_sha256(network.encoder.state_dict())
        if found != network.source.sha256:
            raise FailedRunError(
                f"the frozen encoder is not the one that the plans name: tensor hash {found[:12]}…, "
                f"not {network.source.sha256[:12]}…; was -pretrained_weights given?"
            )

    def save_checkpoint(self, filename: str) -> None:
        """Write beside the target and move it into place, so that a full disk or a kill spares the previous one."""
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        final = os.path.basename(filename) == FINAL
        slim = self.bare_network.frozen and (not final or self.recipe.slim_final)
        encoder_left_out = self.bare_network.slim_state_dict() if slim else nullcontext()
        with replaced_atomically(filename, THEN) as temporary, encoder_left_out:
            super().save_checkpoint(temporary)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """nnU-Net's validation with slices and mirrors batched."""
        with _predictor_replaced():
            super().perform_actual_validation(save_probabilities)


class FrozenEncoder25DTrainer(FrozenEncoderTrainer):
    """Around the 2.5-D network: stacks of slices, mirrored as slices are."""

    networks = (NETWORK_25D,)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(  # noqa: N802
        self,
    ) -> tuple[Any, bool, Any, tuple[int, ...]]:
        """nnU-Net's, without mirroring along z, in training and in prediction: twice the time for nothing in 2-D."""
        rotation, dummy_2d, patch, _ = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        self.inference_allowed_mirroring_axes = (1, 2)
        return rotation, dummy_2d, patch, (1, 2)


class SubsetTrainer(SubsetMixin, SafeContinueMixin, MeasuredMixin, nnUNetTrainer):
    """Stock nnU-Net on the plans' part of the training split: the baseline of a data-ratio sweep."""

    schedule: ClassVar[tuple[int, int, int] | None] = None

    def initialize(self) -> None:
        """Shorten the schedule where a variant asks for it: (epochs, iterations, validation iterations)."""
        if self.schedule is not None:
            self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = (
                self.schedule
            )
        self.save_every = max(
            1, min(50, self.num_epochs // 20)
        )  # epochs that a killed run can lose; stock: 50
        super().initialize()

    def save_checkpoint(self, filename: str) -> None:
        """As atomically as the frozen trainers do."""
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        with replaced_atomically(filename, THEN) as temporary:
            super().save_checkpoint(temporary)


@contextmanager
def _predictor_replaced() -> Iterator[None]:
    """nnU-Net's validation names its predictor at module level: put ours there for the time of the call."""
    original: Callable[..., Any] = stock.nnUNetPredictor
    stock.nnUNetPredictor = BatchedPredictor
    try:
        yield
    finally:
        stock.nnUNetPredictor = original
