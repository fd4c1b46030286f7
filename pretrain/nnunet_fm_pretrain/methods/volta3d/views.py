"""Crops of a volume: global ones for teacher and student, local ones for the student."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter

from nnunet_fm_pretrain.methods.volta3d.corruption import corrupt, patches_to_corrupt
from nnunet_fm_pretrain.methods.volta3d.recipe import IntensityRecipe, VolumeViews

Volume = Float[np.ndarray, "z y x"]
Cube = Float[np.ndarray, "s s s"]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class GlobalView:
    """One global crop, as teacher and student see it.

    Attributes:
        teacher: with mild changes of the intensities.
        student: with stronger ones.
        corrupted: the same with blocks replaced.
        hidden: the patches that are replaced.
    """

    teacher: Cube
    student: Cube
    corrupted: Cube
    hidden: Bool[np.ndarray, "t t t"]


class VolumeViewMaker:
    """Makes the crops of a volume, a function of the random generator that is handed in.

    Args:
        recipe: sizes, scales and changes.
        patch: edge of a patch in voxels.
    """

    def __init__(self, recipe: VolumeViews, patch: int) -> None:
        self.recipe, self.patch = recipe, patch

    def global_view(self, volume: Volume, spacing: Triple, rng: np.random.Generator) -> GlobalView:
        """Cut a global crop out of a volume with intensities from 0 to 1.

        Args:
            volume: (z, y, x).
            spacing: size of a voxel in mm (z, y, x).
            rng: random generator.
        """
        r = self.recipe
        crop = self._crop(volume, spacing, r.global_size, r.global_scale, rng)
        teacher, student = changed(crop, r.teacher, rng), changed(crop, r.student, rng)
        grid = (r.global_size // self.patch,) * 3
        blocks = patches_to_corrupt(grid, r.corruption, rng)
        corrupted = corrupt(student, blocks, self.patch, rng)
        return GlobalView(teacher, student, corrupted, blocks != 0)

    def local_view(self, volume: Volume, spacing: Triple, rng: np.random.Generator) -> Cube:
        """Cut a local crop, whose intensities are not changed."""
        return self._crop(volume, spacing, self.recipe.local_size, self.recipe.local_scale, rng)

    def _crop(
        self,
        volume: Volume,
        spacing: Triple,
        side: int,
        scale: tuple[float, float],
        rng: np.random.Generator,
    ) -> Cube:
        box = random_cube(volume.shape, spacing, scale, self.recipe.anisotropy, rng)
        crop = resized(volume[box], side)
        return crop[:, :, ::-1] if rng.random() < self.recipe.flip else crop


def random_cube(
    shape: tuple[int, ...],
    spacing: Triple,
    scale: tuple[float, float],
    anisotropy: float,
    rng: np.random.Generator,
) -> tuple[slice, ...]:
    """Draw a box that is a cube in mm, but for the anisotropy.

    Args:
        shape: of the volume in voxels.
        spacing: size of a voxel in mm.
        scale: range of the share of the largest cube inside the volume.
        anisotropy: a of a factor exp(U(-a/2, a/2)) on each edge.
        rng: random generator.
    """
    longest = min(n * mm for n, mm in zip(shape, spacing, strict=True))
    edge = longest * rng.uniform(*scale) ** (1 / 3)
    factors = np.exp(rng.uniform(-anisotropy / 2, anisotropy / 2, 3))
    box = []
    for n, mm, factor in zip(shape, spacing, factors, strict=True):
        length = min(n, max(1, round(edge * factor / mm)))
        first = int(rng.integers(n - length + 1))
        box.append(slice(first, first + length))
    return tuple(box)


def median_voxel(
    shapes: Sequence[tuple[int, ...]], spacings: Sequence[Triple], views: VolumeViews
) -> float:
    """Return the edge in mm of a voxel of the global crops: the median over volumes and scales.

    Args:
        shapes: of the volumes in voxels.
        spacings: sizes of their voxels in mm.
        views: sizes and scales of the crops.
    """
    pairs = zip(shapes, spacings, strict=True)
    largest = [min(n * mm for n, mm in zip(*pair, strict=True)) for pair in pairs]
    middle = (sum(views.global_scale) / 2) ** (1 / 3)
    return float(np.median(largest)) * middle / views.global_size


def resized(box: Volume, side: int) -> Cube:
    """Resize a box to a cube: linear, and averaged where it shrinks."""
    z, y, x = box.shape
    rows = _resized_rows(np.ascontiguousarray(box.reshape(z, y * x)), side)
    rows = _resized_rows(rows.reshape(side, y, x).transpose(1, 0, 2).reshape(y, side * x), side)
    rows = _resized_rows(rows.reshape(side * side, x).T, side)
    return rows.reshape(side, side, side).transpose(2, 1, 0)


def _resized_rows(rows: Float[np.ndarray, "n m"], side: int) -> Float[np.ndarray, "s m"]:
    shrinks = len(rows) > side
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(rows), (rows.shape[1], side), interpolation=way)


def changed(crop: Cube, recipe: IntensityRecipe, rng: np.random.Generator) -> Cube:
    """Change the intensities of a crop; the background stays 0."""
    head = crop > 0
    if recipe.gamma:
        crop = crop ** np.float32(math.exp(rng.uniform(-recipe.gamma, recipe.gamma)))
    if recipe.scale:
        crop = crop * np.float32(rng.uniform(1 - recipe.scale, 1 + recipe.scale))
    if recipe.blur:
        crop = gaussian_filter(crop, rng.uniform(0, recipe.blur), truncate=2.5)
    if recipe.noise:
        strength = np.float32(rng.uniform(0, recipe.noise))
        crop = crop + strength * rng.standard_normal(crop.shape, dtype=np.float32)
    return np.clip(crop, 0, 1) * head
