"""The network that plans name: fusion, frozen encoder, decoder."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nnunet_fm.encoders import Encoder, EncoderSource, FeatureInfo, build_encoder
from nnunet_fm.internal.device import Precision
from nnunet_fm.internal.errors import InputError
from nnunet_fm.network.decoders import Decoder, find_decoder
from nnunet_fm.network.decoders.registry import check_decoder_options, check_tokens
from nnunet_fm.network.fusion import FusionSchedule, make_fusion
from nnunet_fm.network.input_size import doublings_of, to_encoder_size

ENCODER = "encoder."
TOKENS = ("on", "off")
NETWORK, NETWORK_25D = (
    "nnunet_fm.network.FrozenEncoderNetwork",
    "nnunet_fm.network25d.FrozenEncoder25DNetwork",
)
NETWORKS = (NETWORK, NETWORK_25D)  # as plans name them


class FrozenEncoderNetwork(nn.Module):
    """A segmentation network around a frozen encoder, for slices or volumes as the encoder is.

    Building it reads no file: the encoder starts with random weights, and `load_encoder` (called by
    the trainer) or `load_state_dict` fills it. There is no method called `initialize`, which
    nnU-Net would apply to the encoder.

    Args:
        input_channels: MRI channels of a case.
        num_classes: output channels.
        encoder: architecture name, see `nnunet_fm.encoders.build_encoder`.
        encoder_options: options of the architecture (`norm_eps`, `rope`, ...).
        encoder_source: where its weights are, as `EncoderSource.to_plans` writes it; None if the
            caller fills them.
        taps: tapped blocks; the last of each quarter if None.
        fusion: `learnable`, `fixed` or `learnable_then_fixed(EPOCHS)`; `separate` encodes each MRI
            channel on its own, in all channels of the encoder, and concatenates the features.
        channels: for each channel of the encoder, the number of the MRI channel that feeds it; None
            for the mean of all.
        decoder: `primus` or `light` for tokens of slices, `unetr` or `primus3d` for tokens of
            volumes, `pyramid` for maps of several resolutions, `detail` for all of them; or the
            dotted path of a `Decoder`.
        decoder_options: options of the decoder.
        tokens: `off` leaves the decoder without features: the encoder is not computed.
        encoder_scale: how many times the image is enlarged for the encoder: 1, 2 or 4. Its maps
            are as many times finer; none may become finer than the image.
        deep_supervision: must be False; nnU-Net passes it.
    """

    takes_stacks: ClassVar[bool] = False  # whether its inputs are stacks of slices

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        encoder: str,
        encoder_options: dict[str, Any] | None = None,
        encoder_source: dict[str, Any] | None = None,
        taps: Sequence[int] | None = None,
        fusion: str = "learnable",
        decoder: str = "primus",
        channels: Sequence[int] | None = None,
        deep_supervision: bool = False,
        decoder_options: dict[str, Any] | None = None,
        tokens: str = "on",
        encoder_scale: int = 1,
    ) -> None:
        super().__init__()
        if deep_supervision:
            raise InputError(
                "deep_supervision=True: this decoder has one output; "
                "use a trainer of nnunet-fm (-tr)"
            )
        if tokens not in TOKENS:
            raise InputError(f"tokens {tokens!r}; allowed: {', '.join(TOKENS)}")
        self.architecture = encoder
        options = dict(encoder_options or {})
        self.source = EncoderSource.from_plans(
            {"encoder": encoder, "encoder_options": options, "encoder_source": encoder_source}
        )
        self.tokens = tokens == "on"
        self.schedule = FusionSchedule.parse(fusion if self.tokens else "fixed")
        with torch.random.fork_rng(devices=[]):  # the decoder starts alike with every encoder
            built = build_encoder(encoder, taps, **options)
            fused = 1 if self.schedule.separate else input_channels
            spec = built.input_spec
            if spec.slices > 1 and not self.takes_stacks:
                raise InputError(
                    f"encoder {encoder} sees {spec.slices} adjacent slices; allowed: "
                    "--mix-slices 1 (or 3, 5), whose patches are stacks"
                )
            images = built.in_channels // spec.slices
            self.fusion = make_fusion(spec.spatial_dims, fused, images, channels)
        self.encoder_scale = encoder_scale
        self.stages = doublings_of(built, encoder_scale)
        self.encoder: Encoder = built
        self.feature_info = self._feature_info(input_channels // fused, encoder_scale)
        self.decoder = self._build_decoder(
            decoder, num_classes, input_channels, decoder_options or {}
        )
        self.frozen = True
        self.encoder_loaded = False
        self.precision: Precision | None = None
        self._compute: list[Encoder] = []  # in a list, so that it is not a sub-module
        self._slim = False
        self.encoder.requires_grad_(False).eval()
        self.set_fusion_learns(self.schedule.learns(0))
        self.register_state_dict_post_hook(_leave_out_encoder)
        self.register_load_state_dict_pre_hook(_refill_encoder)
        self.register_load_state_dict_post_hook(lambda network, _: network._refresh_compute())

    def _feature_info(self, images: int, scale: int) -> list[FeatureInfo]:
        """Return what the decoder gets: maps of so many images, finer by the scale; or none."""
        if not self.tokens:
            return []
        return [
            replace(info, channels=images * info.channels, stride=max(1, info.stride // scale))
            for info in self.encoder.feature_info
        ]

    def _build_decoder(
        self, name: str, num_classes: int, input_channels: int, options: Mapping[str, Any]
    ) -> Decoder:
        """Build the decoder that fits the encoder, without features if there are no tokens.

        Raises:
            InputError: it does not fit, does not take the options, or needs features.
        """
        form = find_decoder(name, self.encoder, self.architecture)
        check_decoder_options(name, form, options)
        check_tokens(name, form, self.tokens)
        return form(self.feature_info, num_classes, self.stages, input_channels, **options)

    # ---- forward ----

    def forward(self, x: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b k *grid"]:
        """Class logits in float32, at the size of the input.

        Raises:
            ValueError: a side of the input is not a multiple of `2 ** stages`.
        """
        with self._autocast(x.device.type):
            with torch.no_grad() if self._gradient_stops_before_decoder() else nullcontext():
                features = self.encode(x) if self.tokens else []
            return self.decode(features, x).float()

    def _autocast(self, device_type: str) -> AbstractContextManager[Any]:
        """Return the autocast context of the chosen precision, whatever the caller's is.

        If none was chosen (stock prediction), the caller's autocast applies, with bfloat16 instead
        of float16 on GPUs that have it: DINOv3's activations may exceed float16's range.
        """
        precision = self.precision
        if precision is None:
            if device_type != "cuda" or not torch.is_autocast_enabled("cuda"):
                return nullcontext()
            precision = (
                "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
            )
        if precision == "float32":
            return torch.autocast(device_type, enabled=False)
        return torch.autocast(device_type, getattr(torch, precision))

    def encode(self, x: Float[Tensor, "b c *grid"]) -> list[Float[Tensor, "n d *tokens"]]:
        """Fuse the channels and run the encoder: one feature map per tap.

        Separate channels pass the encoder one after another; the features of channel 0 come first.
        """
        patch, step = self.encoder.input_spec.divisor, 2**self.stages
        passes = [
            self._compute_encoder.features(to_encoder_size(self.fuse(part), patch, step))
            for part in x.split(self.fusion.in_channels, dim=1)  # all channels, or one at a time
        ]
        if len(passes) == 1:
            return passes[0]
        return [torch.cat(maps, dim=1) for maps in zip(*passes, strict=True)]

    def fuse(self, x: Float[Tensor, "b c *grid"]) -> Float[Tensor, "n e *sides"]:
        """Return the inputs of the encoder."""
        fused: Tensor = self.fusion(x)
        return fused

    def decode(self, features: list[Tensor], x: Float[Tensor, "b c *grid"]) -> Tensor:
        """Decode the features, and the image for decoders that use it, to class logits."""
        logits: Tensor = self.decoder(features, x)
        return logits

    @property
    def step(self) -> int:
        """Sides of the input must be multiples of it, in pixels or voxels."""
        return max(2**self.stages, self.decoder.stride)

    def _gradient_stops_before_decoder(self) -> bool:
        """Whether the encoder may run without a graph: a learnable fusion in front needs one."""
        return self.frozen and not self.fusion.weight.requires_grad

    @property
    def _compute_encoder(self) -> Encoder:
        return self._compute[0] if self._compute else self.encoder

    def _refresh_compute(self) -> None:
        """Rebuild the bfloat16 copy after weights, device, precision or kernels change."""
        self._compute = (
            [_bfloat16_copy(self.encoder)]
            if self.tokens and self.frozen and self.precision == "bfloat16"
            else []
        )

    def _apply(self, fn: Any, recurse: bool = True) -> "FrozenEncoderNetwork":
        """Move or convert the network, and rebuild the copy."""
        super()._apply(fn, recurse)
        self._refresh_compute()
        return self

    # ---- frozen by construction ----

    def train(self, mode: bool = True) -> "FrozenEncoderNetwork":
        """Set training mode, except for a frozen encoder and any BatchNorm of the encoder.

        BatchNorm keeps its statistics even if the encoder learns: batches are too small.
        """
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        for module in self.encoder.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def unfreeze(self) -> None:
        """Train the active parameters of the encoder too; for the ablation only.

        Raises:
            ValueError: the encoder is not computed.
        """
        if not self.tokens:
            raise InputError(
                "tokens off leaves no encoder to fine-tune; allowed: -tr FrozenDinoTrainer"
            )
        self.frozen = False
        for parameter in self.encoder.active_parameters():
            parameter.requires_grad_(True)
        self._refresh_compute()

    def used_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that are computed with: without tokens, those of the decoder."""
        return self.parameters() if self.tokens else self.decoder.parameters()

    def set_fusion_learns(self, learns: bool) -> None:
        """Train the fusion or fix it; with a fixed fusion the encoder runs without a graph."""
        self.fusion.weight.requires_grad_(learns)

    def use_precision(self, precision: Precision | None) -> None:
        """Choose the precision: `float32`, `float16` autocast, or `bfloat16`.

        With bfloat16, a copy of the frozen encoder's matrices is held in bfloat16. None leaves the
        precision to the caller's autocast. The stored weights, and so the encoder's hash, stay
        float32.
        """
        self.precision = precision
        self._refresh_compute()

    def use_kernels(
        self, *, fused_attention: bool | None = None, gradient_checkpointing: bool | None = None
    ) -> None:
        """Switch the encoder's attention kernel or checkpointing; None leaves them as they are."""
        if fused_attention is not None:
            self.encoder.set_fused_attention(fused_attention)
        if gradient_checkpointing is not None:
            self.encoder.set_gradient_checkpointing(gradient_checkpointing)
        self._refresh_compute()

    # ---- weights ----

    def load_encoder(self) -> None:
        """Fill the encoder from its source, checked against the hash in the plans.

        Raises:
            ValueError: there is no source.
            FileNotFoundError, CheckpointError: as `EncoderSource.load`.
        """
        if self.source is None:
            raise InputError(
                "these plans name no encoder weights; "
                "write them with `nnunet-fm plan --encoder ...`"
            )
        self.encoder.load_state_dict(self.source.load().state_dict())
        self.encoder_loaded = True
        self._refresh_compute()

    @contextmanager
    def slim_state_dict(self) -> Iterator[None]:
        """Within this context, `state_dict` excludes the encoder.

        `load_state_dict` always accepts such a state dict.
        """
        self._slim = True
        try:
            yield
        finally:
            self._slim = False


def _bfloat16_copy(encoder: Encoder) -> Encoder:
    """Return a copy with bfloat16 matrices: bit-equal to autocast, without casts at every call."""
    clone = copy.deepcopy(encoder)
    for module in clone.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
            module.to(torch.bfloat16)
    return clone


def _leave_out_encoder(
    network: nn.Module, state: dict[str, Any], prefix: str, metadata: Any
) -> None:
    if cast(FrozenEncoderNetwork, network)._slim:
        for key in [k for k in state if k.startswith(prefix + ENCODER)]:
            del state[key]


def _refill_encoder(network: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Complete a slim state dict with the encoder, loading it from its source if necessary."""
    network = cast(FrozenEncoderNetwork, network)
    if any(k.startswith(prefix + ENCODER) for k in state):
        network.encoder_loaded = True
        return
    if not network.encoder_loaded:
        network.load_encoder()
    state |= {f"{prefix}{ENCODER}{k}": v for k, v in network.encoder.state_dict().items()}
