"""Synthetic brain MRI with tumours in the BraTS format, computed from formulas and licence-free.

The cases are not anatomy to learn from. They stand in for real ones with the right difficulties
(four contrasts, bias field, noise, partial volume, nested tumour parts with irregular borders) to
run the full pipeline from raw files to Dice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float, Integer
from scipy import ndimage
from tqdm import tqdm

from nnunet_fm.data.image_files import write_compressed
from nnunet_fm.data.sequences import BRATS_SINCE_2023, SEQUENCE_OF
from nnunet_fm.internal.atomic_files import replaced_atomically

SUFFIXES = {SEQUENCE_OF[(suffix,)]: suffix for suffix in BRATS_SINCE_2023}
TISSUES = ("fluid", "grey", "white", "necrosis", "oedema", "enhancing")
# Mean intensity of each tissue, in the order of TISSUES.
CONTRASTS = {
    "T1": (0.22, 0.55, 0.80, 0.38, 0.55, 0.56),
    "T1c": (0.22, 0.58, 0.82, 0.36, 0.56, 1.15),
    "T2": (1.05, 0.66, 0.48, 0.92, 0.88, 0.74),
    "FLAIR": (0.18, 0.72, 0.58, 0.62, 1.05, 0.86),
}
NECROSIS, OEDEMA, ENHANCING = 1, 2, 3  # labels of BraTS 2023

Volume = Float[np.ndarray, "z y x"]
Labels = Integer[np.ndarray, "z y x"]


@dataclass(frozen=True)
class SyntheticCase:
    """One synthetic case.

    Attributes:
        images: an image per channel, 0 outside the brain.
        labels: tumour labels of BraTS 2023.
        spacing: voxel size in mm, (z, y, x).
    """

    images: dict[str, Volume]
    labels: Labels
    spacing: tuple[float, float, float]


def make_case(
    seed: int,
    shape: Sequence[int] = (24, 112, 96),
    spacing: tuple[float, float, float] = (6.0, 1.7, 1.7),
) -> SyntheticCase:
    """Draw one case, a function of its arguments alone.

    Args:
        seed: any integer that is not negative.
        shape: voxels, (z, y, x).
        spacing: voxel size in mm, (z, y, x).
    """
    rng = np.random.default_rng(seed)
    tissues = anatomy(rng, tuple(shape))
    brain = np.stack(list(tissues.values())).sum(0) > 0.5
    labels = tumour(rng, tissues["white"], brain)
    for name, label in (("necrosis", NECROSIS), ("oedema", OEDEMA), ("enhancing", ENHANCING)):
        part = (labels == label).astype(float)
        tissues = {k: v * (1 - part) for k, v in tissues.items()} | {name: part}
    soft = {k: ndimage.gaussian_filter(v, (0.3, 0.6, 0.6)) for k, v in tissues.items()}
    images = {channel: _image(rng, soft, means, brain) for channel, means in CONTRASTS.items()}
    return SyntheticCase(images, labels, spacing)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> Volume:
    """Draw Gaussian noise of unit variance with a correlation length of `sigma` in-plane voxels."""
    noise = ndimage.gaussian_filter(
        rng.standard_normal(shape), (sigma / 3, sigma, sigma), mode="wrap"
    )
    return (noise - noise.mean()) / noise.std()


def anatomy(rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, Volume]:
    """Draw tissue maps: a folded grey ribbon around white matter, ventricles, deep grey nuclei."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    warp = [0.03 * smooth_noise(rng, shape, 14) for _ in range(3)]
    x = x * rng.uniform(0.95, 1.08) + warp[0]
    y = y * rng.uniform(0.95, 1.08) + warp[1]
    z = z + warp[2]
    radius = np.sqrt((x / 0.80) ** 2 + (y / 0.90) ** 2 + ((z + 0.1) / 0.95) ** 2)
    depth = 1 - radius  # 0 at the surface
    folds = smooth_noise(rng, shape, 2.2)
    midline = np.exp(-((x / 0.02) ** 2)) * (depth < 0.45) * (z > -0.3)
    head = depth > 0
    sulci = head & (
        (depth < 0.05 + 0.05 * folds) | ((folds > 1.1) & (depth < 0.16)) | (midline > 0.5)
    )
    grey = head & ~sulci & (depth < 0.15 + 0.07 * folds)
    side = np.abs(x)
    width = rng.uniform(0.7, 1.4)
    ventricle = (
        ((side - 0.13) / (0.07 * width)) ** 2 + (y / 0.42) ** 2 + ((z - 0.05) / 0.33) ** 2 < 1
    ) & head
    nuclei = ((side - 0.24) / 0.11) ** 2 + ((y - 0.02) / 0.24) ** 2 + ((z + 0.08) / 0.25) ** 2 < 1
    fluid = sulci | ventricle
    grey = (grey | (nuclei & head)) & ~fluid
    return {
        "fluid": fluid.astype(float),
        "grey": grey.astype(float),
        "white": (head & ~fluid & ~grey).astype(float),
    }


def tumour(rng: np.random.Generator, white: Volume, brain: np.ndarray) -> Labels:
    """Draw a core with a necrotic centre and an enhancing rim, in oedema along the white matter."""
    shape = white.shape
    candidates = np.argwhere(ndimage.binary_erosion(white > 0.5, iterations=1))
    candidates = candidates[np.abs(candidates[:, 0] - shape[0] / 2) < shape[0] / 3]
    centre = candidates[rng.integers(len(candidates))]
    steps = (0.28, 1.0, 1.0)  # in in-plane pixels: slices are thicker
    offsets = [
        (g - c) / s
        for g, c, s in zip(np.ogrid[tuple(map(slice, shape))], centre, steps, strict=True)
    ]
    distance = np.sqrt(sum(o**2 for o in offsets)) / rng.uniform(13, 22)
    border = distance + 0.16 * smooth_noise(rng, shape, 3.5) + 0.10 * smooth_noise(rng, shape, 1.6)
    core_size = rng.uniform(0.45, 0.65)
    oedema = (border - 0.25 * (white - 0.5) < 1) & brain
    core = (border < core_size) & brain
    necrosis = border < core_size * rng.uniform(0.5, 0.75)
    labels = np.zeros(shape, np.uint8)
    labels[oedema | core] = OEDEMA
    labels[core] = ENHANCING
    labels[core & necrosis] = NECROSIS
    return labels


def _image(
    rng: np.random.Generator, tissues: dict[str, Volume], means: Sequence[float], brain: np.ndarray
) -> Volume:
    """Mix the tissue means; add texture, bias field and Rician noise; scale; clear the outside."""
    image = sum(
        tissues[t] * m * rng.uniform(0.93, 1.07) for t, m in zip(TISSUES, means, strict=True)
    )
    shape = brain.shape
    image = image * (1 + 0.04 * smooth_noise(rng, shape, 3))
    image = image * np.exp(0.12 * smooth_noise(rng, shape, 30))
    level = rng.uniform(0.02, 0.045)
    noisy = np.hypot(image + level * rng.standard_normal(shape), level * rng.standard_normal(shape))
    return (noisy * brain * rng.uniform(300, 900)).astype(np.float32)


def write_brats(folder: Path, cases: int, first_seed: int = 0, labelled: bool = True) -> list[str]:
    """Write cases with the file names of BraTS 2023, `FMDEMO-00000/FMDEMO-00000-t1n.nii.gz`.

    Args:
        folder: output folder; created if it does not exist.
        cases: number of cases.
        first_seed: seed and number of the first case.
        labelled: write the segmentations next to the images (else to `folder/labels`).

    Returns:
        The names of the cases.
    """
    names = [f"FMDEMO-{number:05d}" for number in range(first_seed, first_seed + cases)]
    for seed, name in tqdm(list(enumerate(names, first_seed)), desc="making cases"):
        case = make_case(seed)
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        for channel, suffix in SUFFIXES.items():
            write_image(
                case.images[channel].round().astype(np.int16),
                case.spacing,
                target / f"{name}-{suffix}.nii.gz",
            )
        segmentation = folder / "labels" / f"{name}.nii.gz"
        if labelled:
            segmentation = target / f"{name}-seg.nii.gz"
        segmentation.parent.mkdir(exist_ok=True)
        write_image(case.labels, case.spacing, segmentation)
    return names


def write_image(array: np.ndarray, spacing: tuple[float, float, float], path: Path) -> None:
    """Write (z, y, x) voxels with their spacing in mm (z, y, x), atomically."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(tuple(reversed(spacing)))
    with replaced_atomically(path) as temporary:
        write_compressed(image, temporary)
