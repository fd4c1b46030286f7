"""Encoders of 3-D U-Nets from dynamic-network-architectures: OpenMind's ResEnc-L and the U-Nets of AMAES."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nnunet_fm.encoders.contract import (
    Z_SCORE_EVERYWHERE,
    ZERO_TO_ONE,
    FeatureInfo,
    InputSpec,
    check_sides,
)
from nnunet_fm.encoders.families.brainiac import turned
from nnunet_fm.encoders.families.timm_vit import checked_taps, parameters_without

CONVOLUTIONS: dict[str, Any] = {
    "conv_op": nn.Conv3d,
    "conv_bias": True,
    "norm_op": nn.InstanceNorm3d,
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": nn.LeakyReLU,
    "nonlin_kwargs": {"inplace": True},
    "return_skips": True,
}


class VolumeUNetEncoder(nn.Module):
    """The encoder of a U-Net on one channel: a map for each resolution, from the full one down.

    Args:
        body: gives all stages' maps; its state dict has the published names.
        taps: stages whose maps are given; all if None.
        widths: channels of the stages; each halves the resolution of the one before it, the first
            keeps it.
        native: side in voxels of the cubes of pretraining.
        axis_order: `zyx` for weights from nnU-Net's kin, `xyz` for those that read NIfTI files as
            they lie on disk.
        intensity: of the pretraining images.
    """

    kind: Literal["tokens", "pyramid"] = "pyramid"
    in_channels = 1

    def __init__(
        self,
        body: nn.Module,
        taps: Sequence[int] | None,
        widths: Sequence[int],
        native: int,
        axis_order: str,
        intensity: str,
    ) -> None:
        super().__init__()
        self.body = body
        self.taps = checked_taps(taps, len(widths), range(len(widths)))
        self.gradient_checkpointing = False
        self.input_spec = InputSpec(
            3,
            2 ** (len(widths) - 1),
            (native,) * 3,
            axis_order,
            orientation="as acquired",
            intensity=intensity,
        )
        self.feature_info = [FeatureInfo(widths[n], 2**n, f"stages.{n}") for n in self.taps]

    def features(self, x: Float[Tensor, "b c z y x"]) -> list[Float[Tensor, "b d tz ty tx"]]:
        """Maps of the tapped stages.

        Raises:
            ValueError: a side of the input is no multiple of the largest stride.
        """
        check_sides(x.shape[2:], self.input_spec.divisor, "largest stride")
        turns = self.input_spec.axis_order == "xyz"
        x = turned(x) if turns else x
        maps = (
            checkpoint(self.body, x, use_reentrant=False)
            if self.gradient_checkpointing
            else self.body(x)
        )
        return [turned(maps[n]) if turns else maps[n] for n in self.taps]

    def embed(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d"]:
        """The mean over the last tapped map."""
        return self.features(x)[-1].mean((2, 3, 4))

    def parameters_in_use(self) -> Iterator[nn.Parameter]:
        """The parameters that reach the features: not those of stages below the last tap."""
        stages: Any = self.body.stages
        return parameters_without(self.body, stages[self.taps[-1] + 1 :])

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute everything in the backward pass instead of keeping activations."""
        self.gradient_checkpointing = enabled


def resenc(
    taps: Sequence[int] | None = None,
    widths: Sequence[int] = (32, 64, 128, 256, 320, 320),
    blocks: Sequence[int] = (1, 3, 4, 6, 6, 6),
) -> VolumeUNetEncoder:
    """ResEnc-L as OpenMind pretrained it (Wald et al., arXiv:2412.17041): 160^3, z-score without a mask."""
    strides = [1, *[2] * (len(widths) - 1)]
    body = ResidualEncoder(
        1,
        len(widths),
        list(widths),
        kernel_sizes=3,
        strides=strides,
        n_blocks_per_stage=list(blocks),
        **CONVOLUTIONS,
    )
    return VolumeUNetEncoder(body, taps, widths, 160, "zyx", Z_SCORE_EVERYWHERE)


def amaes(taps: Sequence[int] | None = None, width: int = 32) -> VolumeUNetEncoder:
    """The U-Net encoder of AMAES (Munk et al., arXiv:2408.00640): B has 32 channels at full resolution, XL 64."""
    widths, count = [width * 2**n for n in range(5)], 5
    body = PlainConvEncoder(
        1,
        count,
        widths,
        kernel_sizes=3,
        strides=[1, 2, 2, 2, 2],
        n_conv_per_stage=2,
        pool="max",
        **CONVOLUTIONS,
    )
    return VolumeUNetEncoder(body, taps, widths, 128, "xyz", ZERO_TO_ONE)
