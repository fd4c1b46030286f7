"""SwinUNETR and BrainSegFounder: MONAI's 3-D Swin transformer (extra `[volume]`)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from nnunet_fm.encoders.axes import Turn
from nnunet_fm.encoders.contract import (
    Encoder,
    FeatureInfo,
    InputSpec,
    check_sides,
    parameters_without,
)
from nnunet_fm.encoders.key_format import PROJECTORS, Converted, KeyFormat, place_under
from nnunet_fm.encoders.registry import (
    register_architecture,
    register_cards,
    register_key_format,
)
from nnunet_fm.encoders.taps import checked_taps
from nnunet_fm.encoders.weight_card import WeightCard

WINDOW = 7  # cells
PATCH = 2  # voxels
BRANCHES = "branches."  # of PRISM, whose files have a format of their own
CT_WINDOW = "a window of CT (-1000 to 1000) scaled to 0 to 1"
# Corners of a 2x2x2 cell in the order in which MONAI before 1.5 concatenated them: two appear
# twice, two never.
LEGACY = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1))
_EXCLUDED = re.compile(
    r"(rotation_head|contrastive_head|convTrans3d|conv|norm|encoder\d+|decoder\d+|out)\..*"
)


class _RealRates(TorchFunctionMode):
    """Let MONAI's constructor read its drop path rates from a tensor, on the meta device too."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = dict(kwargs or {})
        if func is torch.linspace:
            given["device"] = "cpu"
        return func(*args, **given)


class VolumeSwin(Encoder):
    """A Swin transformer on one or more channels.

    It gives five maps, the first at half the resolution, each through a LayerNorm.

    Args:
        taps: numbers of the maps that are returned; all if None.
        width: channels of the first map; the next have twice as many at half the resolution.
        depths, heads: of the four stages.
        modalities: sequence of each channel, for weights of several channels; None for one channel.
        legacy_merging: merge patches as MONAI before 1.5 did (Project-MONAI/MONAI issue 8284). The
            shapes of the weights are the same, the features are not: the weight card has to say
            which.
        image_orientation: of the images that the encoder is used on, e.g. `LPS`, to turn them to
            RAS, see `orientation` of the weight card; None leaves them as they are.
        residual_convolutions: put a residual block of convolutions before each stage, MONAI's
            `use_v2`.
        window: cells along each side of the windows of the attention.
    """

    kind = "pyramid"

    def __init__(
        self,
        taps: Sequence[int] | None = None,
        width: int = 48,
        depths: Sequence[int] = (2, 2, 2, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        modalities: Sequence[str] | None = None,
        legacy_merging: bool = False,
        image_orientation: str | None = None,
        residual_convolutions: bool = False,
        window: int = WINDOW,
    ) -> None:
        from monai.networks.nets.swin_unetr import SwinTransformer

        super().__init__()
        self.in_channels = len(modalities or [""])
        merging: Any = _legacy_merging() if legacy_merging else "merging"
        windows = (window,) * 3
        patches = (PATCH,) * 3
        with _RealRates():
            self.swin = SwinTransformer(
                self.in_channels,
                width,
                windows,
                patches,
                depths,
                heads,
                downsample=merging,
                use_v2=residual_convolutions,
            )
        self.taps = checked_taps(taps, 5, range(5))
        spec = InputSpec(3, PATCH * 2**4, (96,) * 3, axis_order="xyz", orientation="as acquired")
        self.turn: Turn = Turn("xyz", image_orientation)
        self.input_spec = spec.of_modalities(modalities)
        self.feature_info = [
            FeatureInfo(width * 2**n, PATCH * 2**n, f"layers{n}") for n in self.taps
        ]

    def features(self, x: Float[Tensor, "b c z y x"]) -> list[Float[Tensor, "b d tz ty tx"]]:
        """Return the tapped maps.

        Raises:
            InputError: a side of the input is not a multiple of 32.
        """
        maps = self.maps(x)
        return [self.turn.undo(maps[n]) for n in self.taps]

    def maps(self, x: Float[Tensor, "b c z y x"]) -> list[Float[Tensor, "b d i j k"]]:
        """Return all five maps, in the axes of the weights.

        Raises:
            InputError: see `features`.
        """
        check_sides(x.shape[2:], self.input_spec.divisor, "largest stride")
        maps: list[Tensor] = self.swin(self.turn.apply(x))
        return maps

    def active_parameters(self) -> Iterator[nn.Parameter]:
        """Yield all parameters except those of stages above the last tap."""
        stages = [f"layers{n}" for n in range(self.taps[-1] + 1, 5)]
        unused = [m for name, m in self.swin.named_children() if name.removesuffix("c") in stages]
        return parameters_without(self.swin, unused)

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        super().set_gradient_checkpointing(enabled)
        for module in self.swin.modules():
            if hasattr(module, "use_checkpoint"):
                cast(Any, module).use_checkpoint = enabled


def _legacy_merging() -> type[nn.Module]:
    from monai.networks.nets.swin_unetr import PatchMerging

    class LegacyPatchMerging(PatchMerging):
        """Patch merging of MONAI before version 1.5."""

        def forward(self, x: Float[Tensor, "b i j k d"]) -> Float[Tensor, "b i2 j2 k2 d2"]:
            i, j, k = x.shape[1:4]
            x = functional.pad(x, (0, 0, 0, k % 2, 0, j % 2, 0, i % 2))
            corners = torch.cat([x[:, a::2, b::2, c::2] for a, b, c in LEGACY], -1)
            merged: Tensor = self.reduction(self.norm(corners))
            return merged

    return LegacyPatchMerging


def from_monai_swin(state: Mapping[str, Tensor]) -> Converted:
    """Convert MONAI's names of a Swin transformer, of SwinUNETR or of its pretraining."""
    renamed = {key.replace(".mlp.fc", ".mlp.linear"): value for key, value in state.items()}
    return place_under(renamed, "swin.", _EXCLUDED, "decoder or head of the pretraining")


def channels_in_file(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the option `modalities` of a file with one channel.

    BrainSegFounder's page shows its UK Biobank weights with two; others load them with one.
    """
    kernel = tensors.get("swin.patch_embed.proj.weight")
    return {"modalities": None} if kernel is not None and kernel.shape[1] == 1 else {}


def _is_monai_swin(state: Mapping[str, Tensor]) -> bool:
    name = "layers1.0.blocks.0.norm1.weight"
    has_branches = any(key.startswith(BRANCHES) for key in state)
    return (name in state or f"swin.{name}" in state) and not has_branches


def _brainsegfounder_card(
    tag: str,
    modalities: tuple[str, ...],
    pretrained_on: tuple[str, ...],
    orientation: str | None = None,
) -> WeightCard:
    """Return the card of weights on several channels; the files do not name their sequences."""
    return WeightCard(
        name=f"brainsegfounder_swin48.{tag}",
        architecture="swin_unetr48",
        options={"legacy_merging": True, "modalities": list(modalities)},
        licence="UK Biobank MTA, as its page is tagged",
        code_licence="GPL-3.0",
        source=(
            f"model_weights_{tag.upper()}-pretrain.pt of "
            "https://huggingface.co/smilelab/BrainSegFounder"
        ),
        hub=f"hf://smilelab/BrainSegFounder/model_weights_{tag.upper()}-pretrain.pt",
        pretrained_on=pretrained_on,
        citation="arXiv:2406.10395",
        spatial_dims=3,
        files=(f"model_weights_{tag}-pretrain*",),
        by_files_alone=True,
        varies=("modalities",) if tag == "ukb" else (),
        intensity=CT_WINDOW,
        orientation=orientation,
    )


register_architecture("swin_unetr48", VolumeSwin, shown=channels_in_file)
register_architecture(
    "volume_testswin",
    partial(VolumeSwin, width=12, depths=(1, 1, 1, 1), heads=(1, 2, 4, 8)),
    PROJECTORS,
)
register_key_format(
    KeyFormat("MONAI Swin", _is_monai_swin, from_monai_swin, prefixes=("swinViT.",))
)
register_cards(
    # What its code calls T2 is UK Biobank's T2 FLAIR, field 20253.
    _brainsegfounder_card("ukb", ("T1", "FLAIR"), ("UK-Biobank",), "RAS"),
    _brainsegfounder_card(
        "brats",
        ("FLAIR", "T1c", "T1", "T2"),
        ("UK-Biobank", "BraTS2021", "TCGA-GBM", "TCGA-LGG"),
    ),
    # ATLAS's only channel, doubled.
    _brainsegfounder_card("atlas", ("T1", "T1"), ("UK-Biobank", "ATLAS-v2")),
    WeightCard(
        name="swin_unetr48.ct5050",
        architecture="swin_unetr48",
        options={"legacy_merging": True},
        licence="Apache-2.0 (MONAI research contributions)",
        source="model_swinvit.pt of https://github.com/Project-MONAI/MONAI-extra-test-data",
        pretrained_on=("5,050 CT volumes",),
        citation="arXiv:2111.14791",
        spatial_dims=3,
        files=("model_swinvit*", "ssl_pretrained_weights*", "swin_unetr.base_5000ep*"),
        by_files_alone=True,
        intensity=CT_WINDOW,
        orientation="RAS",
    ),
)
