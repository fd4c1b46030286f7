"""From a volume to the slices that pretraining sees (BrainDINO, section 4.1.2)."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float, Int

from nnunet_fm.data.preprocessing import PERCENTILES, bounding_box, resize, zscore
from nnunet_fm.data.volumes import BadVolumeError, Mask, Volume
from nnunet_fm.internal.errors import InputError

Slices = Float[np.ndarray, "n h w"]
Cube = Float[np.ndarray, "s s s"]


@dataclass(frozen=True)
class Preprocessing:
    """The numbers of the preprocessing; together with the input bytes they decide every value of the store.

    Attributes:
        size: side of the cube that the brain's bounding box is resized to.
        slices: axial slices that are kept.
        centre: mean of the normal distribution that slices are drawn from, as a share of `size`
            (paper: 128 of 256).
        spread: its standard deviation, likewise (paper: 50 of 256).
        percentiles: of the non-zero voxels; values beyond are clipped.
        seed: of the draw, mixed with the volume's content.
    """

    size: int = 256
    slices: int = 128
    centre: float = 0.5
    spread: float = 50 / 256
    percentiles: tuple[float, float] = PERCENTILES
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.slices <= self.size:
            raise InputError(
                f"{self.slices} slices of a cube of side {self.size}; allowed: 1 to {self.size}"
            )
        if not 16 <= self.size <= 1024:
            raise InputError(f"size {self.size}; allowed: 16 to 1024")

    def key(self) -> str:
        """Short identity of these numbers."""
        return hashlib.sha256(repr(sorted(asdict(self).items())).encode()).hexdigest()[:12]


def preprocess(
    volume: Volume, brain: Mask, options: Preprocessing
) -> tuple[Slices, Int[np.ndarray, " n"]]:
    """Crop to the brain, resize to a cube, clip and z-score its non-zero voxels, draw axial slices.

    Args:
        volume: (z, y, x) as `read_volume` gives it.
        brain: its brain mask.
        options: see `Preprocessing`.

    Returns:
        Slices (float32; background exactly 0, the rest of mean 0 and deviation 1 over the cube) and
        their numbers in the cube, increasing.

    Raises:
        BadVolumeError: hardly anything inside the mask, or one value only.
    """
    (slices,), chosen = preprocess_registered([volume], [brain], options)
    return slices, chosen


def preprocess_registered(
    volumes: Sequence[Volume], brains: Sequence[Mask], options: Preprocessing
) -> tuple[list[Slices], Int[np.ndarray, " n"]]:
    """The same for volumes on one grid: one box around all of their brains, the same slices of each.

    Raises:
        BadVolumeError: as `preprocess`.
    """
    if not volumes:
        raise BadVolumeError("no volume of this session can be read")
    stripped = [np.where(brain, volume, 0) for volume, brain in zip(volumes, brains, strict=True)]
    box = bounding_box(np.any([s != 0 for s in stripped], axis=0))
    cube = (options.size,) * 3
    cubes = [zscore(*resize(s[box], cube), options.percentiles) for s in stripped]
    chosen = draw_slices(cubes, options)
    return [cube[chosen] for cube in cubes], chosen


def draw_slices(cubes: Sequence[Cube], options: Preprocessing) -> Int[np.ndarray, " n"]:
    """Numbers of slices from N(centre, spread) without replacement; the cubes' content seeds the draw."""
    digest = hashlib.sha256()
    for cube in cubes:
        digest.update(np.ascontiguousarray(cube).tobytes())
    content = digest.digest()
    rng = np.random.default_rng([options.seed, int.from_bytes(content[:8], "little")])
    numbers = np.arange(options.size)
    z = (numbers - options.centre * options.size) / (options.spread * options.size)
    weights = np.exp(-0.5 * z**2)
    return np.sort(rng.choice(numbers, options.slices, replace=False, p=weights / weights.sum()))
