"""Preprocessing of volumes for stores: drawn slices (BrainDINO, section 4.1.2) or whole volumes."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from nnunet_fm.data.preprocessing import (
    PERCENTILES,
    centre_fit,
    check_spacing,
    crop_to_brains,
    resize,
    shape_at_spacing,
    zscore,
)
from nnunet_fm.data.volumes import Mask, Volume
from nnunet_fm.encoders.contract import Z_SCORE, ZERO_TO_ONE
from nnunet_fm.encoders.intensity import rescale_intensity
from nnunet_fm.internal.errors import InputError
from nnunet_fm_pretrain.data.records import Record, SliceRecord, VolumeRecord

Slices = Float[np.ndarray, "n h w"]
Cube = Float[np.ndarray, "s s s"]
Triple = tuple[float, float, float]
SMALLEST_SIZE, LARGEST_SIZE = 16, 1024  # voxels


class Prepared(NamedTuple):
    """The values of a volume, and the fields of its record that follow from the preprocessing."""

    values: Float[np.ndarray, "z y x"]
    fields: dict[str, Any]


class StorePreprocessing(ABC):
    """How volumes are made for one kind of store.

    Attributes:
        record_type: kind of record, and so of store.
    """

    record_type: ClassVar[type[Record]]

    @abstractmethod
    def key(self) -> str:
        """Return a short identity of the numbers; with the input bytes it decides every value."""

    @abstractmethod
    def describe(self) -> str:
        """Return the numbers as the options of `pretrain prepare` that give them."""

    @abstractmethod
    def chunk(self) -> tuple[int, int, int]:
        """Return how many values are stored together (z, y, x)."""

    @abstractmethod
    def apply(
        self, volumes: Sequence[Volume], brains: Sequence[Mask], spacing: Triple
    ) -> list[Prepared]:
        """Make volumes that lie on one grid.

        Args:
            volumes: (z, y, x) as `read_volume` gives them.
            brains: their brain masks.
            spacing: size of a voxel in mm (z, y, x).

        Raises:
            BadVolumeError: hardly anything inside the masks, or one value only.
        """


@dataclass(frozen=True)
class Preprocessing(StorePreprocessing):
    """Drawn axial slices of a cube.

    Attributes:
        size: side in voxels of the cube that the brain's bounding box is resized to.
        slices: axial slices that are kept; `size` keeps all.
        centre: mean of the normal distribution that slices are drawn from, as a share of `size`
            (paper: 128 of 256).
        spread: its standard deviation, likewise (paper: 50 of 256).
        percentiles: of the non-zero voxels; values beyond are clipped.
        seed: of the draw, mixed with the volume's content.
    """

    record_type = SliceRecord

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
        if not SMALLEST_SIZE <= self.size <= LARGEST_SIZE:
            raise InputError(f"size {self.size}; allowed: {SMALLEST_SIZE} to {LARGEST_SIZE}")

    def key(self) -> str:
        """Return a short identity of these numbers."""
        return hashlib.sha256(repr(sorted(asdict(self).items())).encode()).hexdigest()[:12]

    def describe(self) -> str:
        """Return the numbers as the options of `pretrain prepare` that give them."""
        return f"--size {self.size} --slices {self.slices} --seed {self.seed}"

    def chunk(self) -> tuple[int, int, int]:
        """Return the shape of a slice."""
        return 1, self.size, self.size

    def apply(
        self, volumes: Sequence[Volume], brains: Sequence[Mask], spacing: Triple
    ) -> list[Prepared]:
        """Make the slices of volumes that lie on one grid."""
        cut, numbers = preprocess_registered(volumes, brains, self)
        fields = {"slices": tuple(int(n) for n in numbers), "size": self.size}
        return [Prepared(slices, fields) for slices in cut]


@dataclass(frozen=True)
class VolumePreprocessing(StorePreprocessing):
    """Whole volumes, cropped to the brain.

    Attributes:
        spacing: size of a voxel in mm (z, y, x) that volumes are resampled to; None: not resampled
            by spacing.
        shape: voxels (z, y, x). With `spacing` volumes are centred, and cropped or padded with 0 to
            this shape; without it the brain's bounding box is resized to it. None: as it comes.
        percentiles: of the non-zero voxels; values beyond are clipped.
        chunks: voxels (z, y, x) that are stored together.
        intensity: `z-score`, over the non-zero voxels; or `0 to 1`, where the percentiles become
            0 and 1. The background is 0.
    """

    record_type = VolumeRecord

    spacing: Triple | None = (1.0, 1.0, 1.0)
    shape: tuple[int, int, int] | None = None
    percentiles: tuple[float, float] = PERCENTILES
    chunks: tuple[int, int, int] = (16, 64, 64)
    intensity: str = Z_SCORE

    def __post_init__(self) -> None:
        if self.spacing is not None:
            check_spacing(self.spacing)
        if self.shape is not None and not all(
            SMALLEST_SIZE <= n <= LARGEST_SIZE for n in self.shape
        ):
            raise InputError(
                f"shape {self.shape}; allowed: {SMALLEST_SIZE} to {LARGEST_SIZE} voxels"
            )
        if min(self.chunks) < 1:
            raise InputError(f"chunks {self.chunks}; allowed: 1 voxel or more")
        if self.intensity not in (Z_SCORE, ZERO_TO_ONE):
            raise InputError(f"intensity {self.intensity!r}; allowed: {Z_SCORE}, {ZERO_TO_ONE}")

    def key(self) -> str:
        """Return a short identity of these numbers."""
        numbers = asdict(self)
        if self.intensity == Z_SCORE:  # as in stores from before there was a choice
            del numbers["intensity"]
        text = f"volumes {sorted(numbers.items())!r}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def describe(self) -> str:
        """Return the numbers as the options of `pretrain prepare` that give them."""
        words = ["--volumes"]
        if self.spacing:
            words += ["--spacing", *(f"{side:g}" for side in self.spacing)]
        if self.shape:
            words += ["--shape", *(str(side) for side in self.shape)]
        if self.intensity == ZERO_TO_ONE:
            words.append("--zero-to-one")
        return " ".join(words)

    def chunk(self) -> tuple[int, int, int]:
        """Return the voxels that are stored together."""
        return self.chunks

    def apply(
        self, volumes: Sequence[Volume], brains: Sequence[Mask], spacing: Triple
    ) -> list[Prepared]:
        """Make volumes that lie on one grid."""
        boxes = crop_to_brains(volumes, brains)
        before = boxes[0].shape
        target = self._target_shape(before, spacing)
        prepared = []
        for box in boxes:
            scores = zscore(*resize(box, target), self.percentiles)
            values = rescale_intensity(scores, self.intensity)
            if self.spacing and self.shape:
                values = centre_fit(values, self.shape)
            size = tuple(s * n / t for s, n, t in zip(spacing, before, target, strict=True))
            fields = {"shape": values.shape, "spacing": size, "intensity": self.intensity}
            prepared.append(Prepared(values, fields))
        return prepared

    def _target_shape(self, before: tuple[int, ...], spacing: Triple) -> tuple[int, int, int]:
        if self.spacing:
            return shape_at_spacing(before, spacing, self.spacing)
        return self.shape or (before[0], before[1], before[2])


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
    (slices,), numbers = preprocess_registered([volume], [brain], options)
    return slices, numbers


def preprocess_registered(
    volumes: Sequence[Volume], brains: Sequence[Mask], options: Preprocessing
) -> tuple[list[Slices], Int[np.ndarray, " n"]]:
    """Do the same for volumes on one grid: one box around all brains, the same slices of each.

    Raises:
        BadVolumeError: as `preprocess`.
    """
    shape = (options.size,) * 3
    boxes = crop_to_brains(volumes, brains)
    cubes = [zscore(*resize(box, shape), options.percentiles) for box in boxes]
    numbers = draw_slices(cubes, options)
    return [cube[numbers] for cube in cubes], numbers


def draw_slices(cubes: Sequence[Cube], options: Preprocessing) -> Int[np.ndarray, " n"]:
    """Draw slice numbers from N(centre, spread) without replacement, seeded by the content."""
    digest = hashlib.sha256()
    for cube in cubes:
        digest.update(np.ascontiguousarray(cube).tobytes())
    content = digest.digest()
    rng = np.random.default_rng([options.seed, int.from_bytes(content[:8], "little")])
    numbers = np.arange(options.size)
    z = (numbers - options.centre * options.size) / (options.spread * options.size)
    weights = np.exp(-0.5 * z**2)
    return np.sort(rng.choice(numbers, options.slices, replace=False, p=weights / weights.sum()))
