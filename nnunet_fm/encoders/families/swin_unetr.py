"""MONAI's 3-D Swin transformer as an encoder: SwinUNETR and its self-supervised relatives (extra `[volume]`)."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nnunet_fm.encoders.contract import FeatureInfo, InputSpec, check_sides
from nnunet_fm.encoders.families.brainiac import turned
from nnunet_fm.encoders.families.timm_vit import checked_taps, parameters_without

WINDOW, PATCH = 7, 2
# corners of a 2x2x2 cell in the order in which MONAI before 1.5 concatenated them: two come twice,
# two never
LEGACY = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1))


class VolumeSwin(nn.Module):
    """A Swin transformer on one channel or more: five maps, at half the resolution and below, each through a LayerNorm.

    Args:
        taps: numbers of the maps that are given; all if None.
        width: channels of the first map; each next one has twice as many at half the resolution.
        depths, heads: of the four stages.
        modalities: the sequence that each channel is, for weights of several channels; None for one
            channel.
        legacy_merging: merge patches as MONAI before 1.5 did (Project-MONAI/MONAI issue 8284). The
            weights' shapes are the same and the features are not: the weight card has to say it.
    """

    kind: Literal["tokens", "pyramid"] = "pyramid"

    def __init__(
        self,
        taps: Sequence[int] | None = None,
        width: int = 48,
        depths: Sequence[int] = (2, 2, 2, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        modalities: Sequence[str] | None = None,
        legacy_merging: bool = False,
    ) -> None:
        from monai.networks.nets.swin_unetr import SwinTransformer

        super().__init__()
        self.in_channels = len(modalities or [""])
        merging: Any = _legacy_merging() if legacy_merging else "merging"
        windows, patches = (WINDOW,) * 3, (PATCH,) * 3
        with torch.device(
            "cpu"
        ):  # its constructor reads numbers from tensors, which the meta device does not have
            self.swin = SwinTransformer(
                self.in_channels, width, windows, patches, depths, heads, downsample=merging
            )
        self.taps = checked_taps(taps, 5, range(5))
        spec = InputSpec(3, PATCH * 2**4, (96,) * 3, axis_order="xyz", orientation="as acquired")
        self.input_spec = spec.of_modalities(modalities)
        self.feature_info = [
            FeatureInfo(width * 2**n, PATCH * 2**n, f"layers{n}") for n in self.taps
        ]

    def features(self, x: Float[Tensor, "b c z y x"]) -> list[Float[Tensor, "b d tz ty tx"]]:
        """Maps of the taps.

        Raises:
            ValueError: a side of the input is no multiple of 32.
        """
        check_sides(x.shape[2:], self.input_spec.divisor, "largest stride")
        maps = self.swin(turned(x))
        return [turned(maps[n]) for n in self.taps]

    def embed(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d"]:
        """The mean over the last tapped map."""
        return self.features(x)[-1].mean((2, 3, 4))

    def parameters_in_use(self) -> Iterator[nn.Parameter]:
        """The parameters that reach the features: not those of stages below the last tap."""
        return parameters_without(
            self.swin, (getattr(self.swin, f"layers{n}") for n in range(self.taps[-1] + 1, 5))
        )

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        for module in self.swin.modules():
            if hasattr(module, "use_checkpoint"):
                cast(Any, module).use_checkpoint = enabled


def _legacy_merging() -> type[nn.Module]:
    from monai.networks.nets.swin_unetr import PatchMerging

    class LegacyPatchMerging(PatchMerging):
        """MONAI's before version 1.5."""

        def forward(self, x: Float[Tensor, "b i j k d"]) -> Float[Tensor, "b i2 j2 k2 d2"]:
            i, j, k = x.shape[1:4]
            x = functional.pad(x, (0, 0, 0, k % 2, 0, j % 2, 0, i % 2))
            corners = torch.cat([x[:, a::2, b::2, c::2] for a, b, c in LEGACY], -1)
            merged: Tensor = self.reduction(self.norm(corners))
            return merged

    return LegacyPatchMerging
