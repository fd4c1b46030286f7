"""PRISM: MONAI's 3-D Swin transformer with branches for anatomy and sequence (extra `[volume]`).

Qiu et al., section 4.2. Two branches divide the deepest map into what is shared by the sequences of
a person and what is a sequence's own. Segmentation uses the maps of the transformer alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nnunet_fm.encoders.axes import STORED, Turn
from nnunet_fm.encoders.contract import checked_spacing
from nnunet_fm.encoders.families.swin_unetr import VolumeSwin
from nnunet_fm.encoders.key_format import PROJECTORS, Converted, KeyFormat
from nnunet_fm.encoders.registry import (
    register_architecture,
    register_cards,
    register_key_format,
)
from nnunet_fm.encoders.weight_card import exported_card
from nnunet_fm.internal.errors import InputError

DEEPEST = 4  # number of the deepest map
GROUPS = 4  # of the norms in the branches
MEAN, ANATOMY, SEQUENCE, BOTH = "mean", "anatomy", "sequence", "both"
POOLS = (MEAN, ANATOMY, SEQUENCE, BOTH)
CARRIED = ("branches", "crop_size", "spacing")  # options in the files of `pretrain export`
SIZES: Mapping[str, Mapping[str, Any]] = {
    "swinb48": {},
    "swinl96": {"width": 96, "depths": (2, 2, 6, 2)},
    "swinh192": {"width": 192, "depths": (2, 2, 18, 2)},
    "nano12": {"width": 12, "depths": (1, 1, 1, 1), "heads": (1, 2, 4, 8), "window": 4},
    "test12": {"width": 12, "depths": (1, 1, 1, 1), "heads": (1, 2, 4, 8), "window": 2},
}


class Divided(NamedTuple):
    """The deepest map, divided.

    Attributes:
        deepest: as the transformer gives it, after its LayerNorm.
        anatomy: what the sequences of a person share.
        sequence: what is the sequence's own.
    """

    deepest: Float[Tensor, "b d i j k"]
    anatomy: Float[Tensor, "b d i j k"]
    sequence: Float[Tensor, "b d i j k"]


class Branches(nn.Module):
    """The two branches, and their aggregation into one map.

    The authors' code normalises each channel of a sample over space (InstanceNorm), which removes
    the mean that TR and TE are predicted from, and fails on one cell; here channels are normalised
    in groups.

    Args:
        width: channels of the deepest map, a multiple of 4.

    Example:
        >>> import torch
        >>> branches = Branches(16)
        >>> divided = branches(torch.zeros(2, 16, 1, 1, 1))
        >>> tuple(branches.join(divided.deepest, divided.anatomy, divided.sequence).shape)
        (2, 16, 1, 1, 1)
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.anatomy = _mixing(width, width)
        self.sequence = _mixing(width, width)
        self.aggregation = _mixing(2 * width, width)

    def forward(self, deepest: Float[Tensor, "b d i j k"]) -> Divided:
        """Divide the deepest map."""
        return Divided(deepest, self.anatomy(deepest), self.sequence(deepest))

    def join(
        self,
        deepest: Float[Tensor, "b d i j k"],
        anatomy: Float[Tensor, "b d i j k"],
        sequence: Float[Tensor, "b d i j k"],
    ) -> Float[Tensor, "b d i j k"]:
        """Join anatomy and sequence, in place of which others may be given, to one map."""
        joined: Tensor = self.aggregation(torch.cat([anatomy, sequence], 1))
        return joined + deepest


def _mixing(given: int, made: int) -> nn.Sequential:
    norm = nn.GroupNorm(GROUPS, made)
    return nn.Sequential(nn.Conv3d(given, made, 1), norm, nn.LeakyReLU())


class Prism(VolumeSwin):
    """The transformer of PRISM on one channel.

    Args:
        taps: numbers of the maps that are returned; all if None.
        width: channels of the first map, see `VolumeSwin`.
        branches: whether the weights hold the branches, as those of `pretrain export` do.
        pool: what `embed` returns: the `mean` of the last tapped map, of the branch for the
            `anatomy` or for the `sequence`, or `both` of the latter, one behind the other.
        image_orientation: of the images that it is used on, e.g. `RAS`, to turn them to the LPS of
            the stores; None leaves them as they are.
        spacing: size of a voxel of the pretraining in mm (z, y, x), which `plan` reports and
            `pretrain probe` reads volumes at; None if unknown.
        crop_size: side of the crops of the pretraining in voxels.
        **arguments: other sizes, see `VolumeSwin`.

    Attributes:
        deepest: channels of the deepest map.

    Raises:
        InputError: the pool of a branch without branches, an unknown pool or orientation, a
            spacing that is not three positive numbers, or a size that is not one whole number.

    Example:
        >>> import torch
        >>> from nnunet_fm.encoders import build_encoder
        >>> encoder = build_encoder("prism_test12", branches=True, pool="both")
        >>> tuple(encoder.embed(torch.zeros(1, 1, 32, 32, 32)).shape)
        (1, 384)
    """

    def __init__(
        self,
        taps: Sequence[int] | None = None,
        width: int = 48,
        branches: bool = False,
        pool: str = MEAN,
        image_orientation: str | None = None,
        spacing: Sequence[float] | None = None,
        crop_size: int = 96,
        **arguments: Any,
    ) -> None:
        if pool not in POOLS:
            raise InputError(f"pool {pool!r}; allowed: {', '.join(POOLS)}")
        if pool != MEAN and not branches:
            raise InputError(
                f"pool={pool} needs weights with branches: branches=true, or pool={MEAN}"
            )
        if type(crop_size) is not int or crop_size < 1:
            raise InputError(f"crop_size {crop_size}; allowed: a whole number above 0")
        super().__init__(taps, width, residual_convolutions=True, **arguments)
        self.pool = pool
        self.deepest = width * 2**DEEPEST
        self.branches = Branches(self.deepest) if branches else None
        self.turn = Turn("xyz", image_orientation, STORED)
        self.input_spec = replace(
            self.input_spec,
            native_size=(crop_size,) * 3,
            orientation=STORED,
            spacing=checked_spacing(spacing),
        )

    def embed(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d"]:
        """Return the mean over space of what `pool` says."""
        if self.pool == MEAN or self.branches is None:
            return super().embed(x)
        divided = self.branches(self.maps(x)[DEEPEST])
        parts = {ANATOMY: [divided.anatomy], SEQUENCE: [divided.sequence]}
        chosen = parts.get(self.pool) or [divided.anatomy, divided.sequence]
        return torch.cat([part.mean((2, 3, 4)) for part in chosen], 1)


def _is_prism(state: Mapping[str, Tensor]) -> bool:
    return "branches.aggregation.0.weight" in state


def _register() -> None:
    register_key_format(KeyFormat("PRISM", _is_prism, lambda state: Converted(dict(state))))
    for size, arguments in SIZES.items():
        name = f"prism_{size}"
        register_architecture(name, partial(Prism, **arguments), PROJECTORS, carried=CARRIED)
        more = {"ignored": PROJECTORS, "spatial_dims": 3}
        register_cards(exported_card(name, "prism", "Qiu et al., PRISM", **more))


_register()
