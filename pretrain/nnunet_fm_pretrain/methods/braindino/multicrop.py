"""Crops of a slice with OpenCV: global and local, flipped, blurred (BrainDINO, section 4.2.1).

Registered sequences can be fused to three channels.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from nnunet_fm_pretrain.data.crops import Box, cut, foreground_box
from nnunet_fm_pretrain.methods.braindino.recipe import CropPair, FusionRecipe, ViewsRecipe

MOST_CHANNELS = 4  # that OpenCV's warpAffine takes

Image = Float[np.ndarray, "c h w"]
Crop = Float[np.ndarray, "c side side"]


@dataclass(frozen=True)
class Views:
    """The crops of one image: two global ones and the local ones, float32."""

    global_crops: list[Float[np.ndarray, "c g g"]]
    local_crops: list[Float[np.ndarray, "c l l"]]


class ViewMaker:
    """Makes the crops of a slice, a function of the random generator that is handed in.

    Args:
        recipe: sizes, scales and probabilities.
        patch: side of a patch in pixels. A crop whose side is not a multiple of it is cut at the
            right and bottom, as a convolution of that stride does (168 becomes 160 for patches of
            16).
        slices: channels that belong to one sequence; their intensities change alike.
    """

    def __init__(self, recipe: ViewsRecipe, patch: int, slices: int = 1) -> None:
        self.recipe, self.patch, self.slices = recipe, patch, slices

    def pair(self, rng: np.random.Generator) -> CropPair:
        """Draw the crop sizes of a step."""
        weights = np.array([p.probability for p in self.recipe.pairs])
        return self.recipe.pairs[int(rng.choice(len(weights), p=weights / weights.sum()))]

    def __call__(self, image: Image, pair: CropPair, rng: np.random.Generator) -> Views:
        """Crop `image` (z-scores, background 0) in the sizes of `pair`."""
        r = self.recipe
        pixels = self._pixels(image)
        blurs = (r.blur.global_1, r.blur.global_2)
        global_crops = [self._crop(pixels, pair.global_size, r.global_scale, p, rng) for p in blurs]
        local_crops = [
            self._crop(pixels, pair.local_size, r.local_scale, r.blur.local, rng)
            for _ in range(r.local_crops)
        ]
        return Views(global_crops, local_crops)

    def global_crop(self, image: Image, pair: CropPair, rng: np.random.Generator) -> Crop:
        """Make one more crop, as the first global one."""
        r = self.recipe
        return self._crop(
            self._pixels(image), pair.global_size, r.global_scale, r.blur.global_1, rng
        )

    def _pixels(self, image: Image) -> np.ndarray:
        """Put the channels last, as OpenCV has them, and resize as the recipe asks for."""
        pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
        side = self.recipe.slice_size
        if side and pixels.shape[:2] != (side, side):
            pixels = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_CUBIC)
        return pixels

    def side(self, size: int) -> int:
        """Return the side in pixels of a crop that is made in this size: whole patches."""
        return size // self.patch * self.patch

    def _crop(
        self,
        pixels: np.ndarray,
        side: int,
        scale: tuple[float, float],
        blur: float,
        rng: np.random.Generator,
    ) -> Crop:
        box = foreground_box(pixels, scale, self.recipe.aspect, self.recipe.foreground, rng)
        if self.recipe.rotation:
            angle = rng.uniform(-self.recipe.rotation, self.recipe.rotation)
            crop = rotated_crop(pixels, box, side, angle)
        else:
            crop = cv2.resize(cut(pixels, box), (side, side), interpolation=cv2.INTER_CUBIC)
        if rng.random() < self.recipe.flip:
            crop = cv2.flip(crop, 1)
        if self.recipe.flip_vertical and rng.random() < self.recipe.flip_vertical:
            crop = cv2.flip(crop, 0)
        if self.recipe.gamma:
            crop = np.sign(crop) * np.abs(crop) ** math.exp(
                rng.uniform(-self.recipe.gamma, self.recipe.gamma)
            )
        if self.recipe.channel_jitter:
            crop = jittered(crop, self.recipe.channel_jitter, self.slices, rng)
        if rng.random() < blur:
            kernel = (self.recipe.blur.kernel,) * 2
            crop = cv2.GaussianBlur(crop, kernel, rng.uniform(*self.recipe.blur.sigma))
        kept = self.side(side)
        return crop.reshape(side, side, -1)[:kept, :kept].transpose(2, 0, 1)


def rotated_crop(pixels: np.ndarray, box: Box, side: int, angle: float) -> np.ndarray:
    """Cut out a box that is rotated by `angle` degrees around its centre; 0 outside the slice."""
    top, left, height, width = box
    turn = math.radians(angle)
    rows, columns = height / side, width / side  # source pixels per pixel of the crop
    middle = (side - 1) / 2
    matrix = np.array(
        [
            [columns * math.cos(turn), -rows * math.sin(turn), left + (width - 1) / 2],
            [columns * math.sin(turn), rows * math.cos(turn), top + (height - 1) / 2],
        ]
    )
    matrix[:, 2] -= matrix[:, :2] @ [middle, middle]
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    if pixels.ndim == 2 or pixels.shape[2] <= MOST_CHANNELS:
        return cv2.warpAffine(pixels, matrix, (side, side), flags=flags)
    channels = [
        cv2.warpAffine(np.ascontiguousarray(channel), matrix, (side, side), flags=flags)
        for channel in pixels.transpose(2, 0, 1)
    ]
    return np.stack(channels, axis=2)


def jittered(
    crop: Float[np.ndarray, "h w *c"], largest: float, slices: int, rng: np.random.Generator
) -> Float[np.ndarray, "h w *c"]:
    """Scale each sequence by exp(U(-j, j)) and shift what is not background by U(-j, j).

    Args:
        crop: the channels of a sequence are adjacent slices.
        largest: j.
        slices: of each sequence.
        rng: random generator.
    """
    pixels = crop.reshape(*crop.shape[:2], -1)
    scale, shift = rng.uniform(-largest, largest, (2, pixels.shape[2] // slices, 1))
    scale = np.exp(scale).repeat(slices, 1).ravel()
    shift = shift.repeat(slices, 1).ravel()
    changed = np.where(pixels == 0, 0, pixels * scale + shift).astype(np.float32)
    return changed.reshape(crop.shape)


def fuse(
    sequences: Float[np.ndarray, "s h w"], recipe: FusionRecipe, rng: np.random.Generator
) -> Float[np.ndarray, "3 h w"]:
    """Make three channels, each a weighted sum of registered sequences."""
    shared = rng.dirichlet([recipe.concentration] * len(sequences))
    weights = shared + recipe.spread * rng.standard_normal((3, len(sequences)))
    return np.einsum("cs,shw->chw", weights.astype(np.float32), sequences)
