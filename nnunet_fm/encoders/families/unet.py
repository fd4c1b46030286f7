"""The encoder of a 3-D U-Net from dynamic-network-architectures; families build on it."""

from collections.abc import Iterator, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from nnunet_fm.encoders.axes import Turn
from nnunet_fm.encoders.contract import (
    Encoder,
    FeatureInfo,
    InputSpec,
    check_sides,
    parameters_without,
)
from nnunet_fm.encoders.taps import checked_taps

CONVOLUTIONS: dict[str, Any] = {
    "conv_op": nn.Conv3d,
    "conv_bias": True,
    "norm_op": nn.InstanceNorm3d,
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": nn.LeakyReLU,
    "nonlin_kwargs": {"inplace": True},
    "return_skips": True,
}


class VolumeUNetEncoder(Encoder):
    """The encoder of a U-Net on one channel: one map per resolution, starting at the full one.

    Args:
        body: returns the maps of all stages; its state dict has the published names.
        taps: stages whose maps are returned; all if None.
        widths: channels of the stages. The first keeps the resolution, each later one halves it.
        native: side of the pretraining cubes, in voxels.
        axis_order: `zyx` for weights trained with nnU-Net's readers, `xyz` for those trained on
            NIfTI arrays as stored.
        intensity: of the pretraining images.
        orientation: of the pretraining images.
        image_orientation: of the images that the encoder is used on, if they have to be turned to
            `orientation`, e.g. `LPS`.
    """

    kind = "pyramid"
    in_channels = 1

    def __init__(
        self,
        body: nn.Module,
        taps: Sequence[int] | None,
        widths: Sequence[int],
        native: int,
        axis_order: str,
        intensity: str,
        orientation: str = "as acquired",
        image_orientation: str | None = None,
    ) -> None:
        super().__init__()
        self.body = body
        self.taps = checked_taps(taps, len(widths), range(len(widths)))
        self.input_spec = InputSpec(
            3,
            2 ** (len(widths) - 1),
            (native,) * 3,
            axis_order,
            orientation=orientation,
            intensity=intensity,
        )
        self.turn: Turn = Turn(axis_order, image_orientation)
        self.feature_info = [FeatureInfo(widths[n], 2**n, f"stages.{n}") for n in self.taps]

    def features(self, x: Float[Tensor, "b c z y x"]) -> list[Float[Tensor, "b d tz ty tx"]]:
        """Return the maps of the tapped stages.

        Raises:
            InputError: a side of the input is not a multiple of the largest stride.
        """
        check_sides(x.shape[2:], self.input_spec.divisor, "largest stride")
        maps: Any = self.run_block(self.body, self.turn.apply(x))
        return [self.turn.undo(maps[n]) for n in self.taps]

    def active_parameters(self) -> Iterator[nn.Parameter]:
        """Yield all parameters except those of stages above the last tap."""
        stages: Any = self.body.stages
        return parameters_without(self.body, stages[self.taps[-1] + 1 :])
