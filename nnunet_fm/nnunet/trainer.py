"""The trainer around a frozen encoder: the only module that overrides nnU-Net's training."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, cast

from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock
from nnunetv2.utilities.helpers import empty_cache
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nnunet_fm.encoders import tensors_sha256
from nnunet_fm.internal import device as devices
from nnunet_fm.internal.errors import (
    FailedRunError,
    InputError,
    OutOfMemoryError,
    is_torch_out_of_memory,
)
from nnunet_fm.network.device_setup import set_up_for_device
from nnunet_fm.network.frozen import NETWORK, NETWORK_25D, NETWORKS, FrozenEncoderNetwork
from nnunet_fm.nnunet.base_trainer import BaseTrainer
from nnunet_fm.nnunet.encoder_in_plans import describe_encoder
from nnunet_fm.nnunet.file_names import FINAL_CHECKPOINT
from nnunet_fm.nnunet.memory_check import MemoryCheck
from nnunet_fm.nnunet.predictor import BatchedPredictor, bare_network
from nnunet_fm.nnunet.recipe import LinearDecay, Recipe, parameter_groups
from nnunet_fm.nnunet.replace_predictor import replaced_predictor


class FrozenEncoderTrainer(BaseTrainer):
    """nnU-Net's trainer around a frozen encoder. Variants set `recipe` only.

    Attributes:
        recipe: the numbers of the training.
        networks: class names of the networks that it trains, as plans hold them.
        missing_encoder: the error of an encoder file that does not exist; raised when training
            starts, because a complete checkpoint can be validated without the file.
        oom_message: why a step does not fit into memory; raised when training starts, because
            prediction takes a tile at a time.
    """

    recipe: ClassVar[Recipe] = Recipe()
    networks: ClassVar[tuple[str, ...]] = NETWORKS
    network: Any
    missing_encoder: FileNotFoundError | None = None
    oom_message: str = ""

    @property
    def bare_network(self) -> FrozenEncoderNetwork:
        """The network without the wrappers of DDP and torch.compile."""
        return cast(FrozenEncoderNetwork, bare_network(self.network))

    # ---- set up ----

    def initialize(self) -> None:
        """Apply the recipe and build the network that the plans name."""
        recipe = self.recipe
        self.num_epochs = recipe.epochs
        self.num_iterations_per_epoch = recipe.iterations
        self.num_val_iterations_per_epoch = recipe.validation_iterations
        self.initial_lr = recipe.learning_rate
        self.weight_decay = recipe.weight_decay
        self.enable_deep_supervision = False  # one output
        self.save_every = 1  # slim checkpoints are small; a killed run loses one epoch at most
        self._check_plans()
        super().initialize()

    def _check_plans(self) -> None:
        name = self.configuration_manager.network_arch_class_name
        if name not in self.networks:
            mixing = " --mix-slices 3" if NETWORK not in self.networks else ""
            raise InputError(
                f"{type(self).__name__} needs a configuration written by "
                f"`nnunet-fm plan{mixing}`; {self.configuration_name} of "
                f"{self.plans_manager.plans_name} names the network {name}. Type "
                f"`nnunet-fm plan -d ID -c 2d --encoder NAME|FILE{mixing}`, then train its "
                "configuration with -p FM_..."
            )

    def configure_optimizers(self) -> tuple[Optimizer, LRScheduler]:
        """Load the encoder and make AdamW over what learns.

        nnU-Net calls this on the built network, before it is wrapped in DDP.
        """
        network = self.bare_network
        try:
            network.load_encoder()
        except FileNotFoundError as error:
            self.missing_encoder = error
        if self.recipe.encoder_learning_rate is not None:
            network.unfreeze()
        self._prepare_device(network)
        optimizer = AdamW(
            parameter_groups(network, self.recipe),
            betas=self.recipe.betas,
            fused=self.device.type in ("cuda", "cpu"),
        )
        encoder, sha256 = self.encoder_record()
        self.print_to_log_file(f"encoder {encoder}, tensor hash {sha256[:12]}")
        return optimizer, LinearDecay(optimizer, self.num_epochs)

    def _prepare_device(self, network: FrozenEncoderNetwork) -> None:
        precision, reason = devices.best_precision(self.device)
        self.precision = precision
        set_up_for_device(network, self.device, precision)
        if precision == "bfloat16":
            self.grad_scaler = None  # bfloat16 has float32's range
        fine_tuned = self.recipe.encoder_learning_rate is not None
        decision = self._memory_check().decide(
            self.recipe.gradient_checkpointing,
            encoder_has_gradient=fine_tuned or network.schedule.learns(0),
        )
        self.gradient_checkpointing = decision.gradient_checkpointing
        self.oom_message = decision.problem
        self.print_to_log_file(decision.message)
        self.print_to_log_file(f"precision {precision} ({reason})")

    def _memory_check(self) -> MemoryCheck:
        return MemoryCheck(
            self.bare_network,
            self.device,
            self.num_input_channels,
            tuple(self.configuration_manager.patch_size),
            self.batch_size,
        )

    def encoder_record(self) -> tuple[str, str]:
        """Name the encoder's card and where its weights come from; give its tensor hash."""
        source = self.bare_network.source
        described = describe_encoder(source, self.bare_network.tokens)
        return described, "" if source is None else source.sha256

    # ---- train ----

    def on_train_start(self) -> None:
        """Check the memory, and that the encoder is the one that the plans name.

        The encoder could be another one after --c or -pretrained_weights.
        """
        if not self.was_initialized:
            self.initialize()
        if self.missing_encoder:
            raise self.missing_encoder
        if self.oom_message:
            raise InputError(self.oom_message)
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

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Train on a batch; a step that runs out of memory reports which patch would fit.

        Raises:
            MemoryError: the step does not fit.
        """
        try:
            return cast(dict[str, Any], super().train_step(batch))
        except RuntimeError as error:
            if not is_torch_out_of_memory(error):
                raise
        # outside the handler, which holds on to the failed step's memory
        self.optimizer.zero_grad(set_to_none=True)
        empty_cache(self.device)
        raise OutOfMemoryError(self._memory_check().oom_message())

    def on_train_end(self) -> None:
        """Assert that the encoder is bit for bit what it was."""
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
        expected = network.source.sha256
        actual = tensors_sha256(network.encoder.state_dict())
        if actual != expected:
            raise FailedRunError(
                f"the frozen encoder is not the one that the plans name: tensor hash "
                f"{actual[:12]}…, not {expected[:12]}…; was -pretrained_weights given?"
            )

    # ---- save and validate ----

    def save_checkpoint(self, filename: str) -> None:
        """Save a checkpoint, without the frozen encoder's tensors unless it is the final one."""
        is_final = Path(filename).name == FINAL_CHECKPOINT
        slim = self.bare_network.frozen and (not is_final or self.recipe.slim_final)
        with self.bare_network.slim_state_dict() if slim else nullcontext():
            super().save_checkpoint(filename)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Validate as nnU-Net does, with slices and mirrored copies batched."""
        with replaced_predictor(stock, BatchedPredictor):
            super().perform_actual_validation(save_probabilities)


class FrozenEncoder25DTrainer(FrozenEncoderTrainer):
    """Trainer around the 2.5-D network: stacks of slices, mirrored as slices are."""

    networks = (NETWORK_25D,)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(  # noqa: N802
        self,
    ) -> tuple[Any, bool, Any, tuple[int, ...]]:
        """Configure as nnU-Net does, but never mirror along z.

        Mirrored stacks would double the time of prediction and bring nothing in 2-D.
        """
        rotation, dummy_2d, patch, _ = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        self.inference_allowed_mirroring_axes = (1, 2)
        return rotation, dummy_2d, patch, (1, 2)
