"""Random boxes of a slice, shared by the methods that crop."""

import math

import numpy as np

ATTEMPTS = 10  # as torchvision's RandomResizedCrop

Box = tuple[int, int, int, int]  # top, left, height, width in pixels


def random_box(
    shape: tuple[int, ...],
    scale: tuple[float, float],
    aspect: tuple[float, float],
    rng: np.random.Generator,
) -> Box:
    """Draw a box of random area and aspect; the whole image if none fits.

    Args:
        shape: of the image in pixels (height, width, ...).
        scale: range of the box's share of the area.
        aspect: range of its width over its height.
        rng: random generator.
    """
    for _ in range(ATTEMPTS):
        area = shape[0] * shape[1] * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < height <= shape[0] and 0 < width <= shape[1]:
            top, left = rng.integers(shape[0] - height + 1), rng.integers(shape[1] - width + 1)
            return int(top), int(left), height, width
    return 0, 0, shape[0], shape[1]


def foreground_box(
    pixels: np.ndarray,
    scale: tuple[float, float],
    aspect: tuple[float, float],
    foreground: float,
    rng: np.random.Generator,
) -> Box:
    """Draw boxes until one has at least the share `foreground` of non-zero pixels, ten at most."""
    for _ in range(ATTEMPTS):
        box = random_box(pixels.shape, scale, aspect, rng)
        if not foreground:
            break
        region = cut(pixels, box)
        if np.count_nonzero(region) >= foreground * region.size:
            break
    return box


def cut(pixels: np.ndarray, box: Box) -> np.ndarray:
    """Return the pixels inside a box, without a copy."""
    top, left, height, width = box
    return pixels[top : top + height, left : left + width]
