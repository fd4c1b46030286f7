"""Synthetic brain MRI under domain randomisation: licence-free pretraining data.

The anatomy comes from formulas (`nnunet_fm.data.synthetic`). Everything that a scanner or a
protocol decides is drawn at random: the brightness of each tissue, bias field, noise, blur, and
whether the skull is shown. No real image is used. The idea is SynthSeg's (Billot et al., Medical
Image Analysis 2023): with contrast drawn at random, features are learned that do not depend on it.
Instead, the brightness may follow from a drawn TR, TE and flip angle, see `signal_equations`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer
from scipy import ndimage
from tqdm import tqdm

from nnunet_fm.data.synthetic import CONTRASTS, TISSUES, anatomy, smooth_noise, tumour, write_image
from nnunet_fm.internal.atomic_files import write_lines
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.processes import worker_pool
from nnunet_fm_pretrain.data.acquisition import PARAMETERS, Acquisition
from nnunet_fm_pretrain.data.signal_equations import PROTOCOLS, brightness, draw_acquisition

Image = Float[np.ndarray, "z y x"]
Labels = Integer[np.ndarray, "z y x"]

SHAPE, SPACING = (32, 128, 112), (4.5, 1.5, 1.5)  # voxels and mm, (z, y, x)
SEQUENCES = 4
LESIONS = {1: "necrosis", 2: "oedema", 3: "enhancing"}
DATASET, LICENCE, TABLE = "synthetic", "CC0-1.0 (made by the program)", "volumes.csv"


def synthesise(
    out: Path,
    subjects: int,
    first_seed: int = 0,
    processes: int = 2,
    signal_equations: bool = False,
) -> Path:
    """Write subjects of four registered sequences each, and the table that `prepare` takes.

    Args:
        out: folder to write to.
        subjects: how many.
        first_seed: seed of the first subject; the others count up from it. A subject is a
            function of its seed alone.
        processes: subjects at a time.
        signal_equations: make T1, T2, PD and FLAIR with drawn TR, TE and flip angle, which the
            table names, instead of random contrasts.

    Returns:
        The table.

    Raises:
        ValueError: fewer than one subject.
    """
    if subjects < 1:
        raise InputError(f"{subjects} subjects; allowed: 1 or more")
    seeds = range(first_seed, first_seed + subjects)
    make = partial(_write_subject, out, signal_equations=signal_equations)
    out.mkdir(parents=True, exist_ok=True)
    with worker_pool(processes) as pool:
        made = tqdm(pool.map(make, seeds), total=subjects, desc="making brains", unit="subject")
        rows = [row for subject in made for row in subject]
    columns = ("subject_id", "dataset", "sequence", "path", "licence")
    write_lines(out / TABLE, (*columns, *PARAMETERS) if signal_equations else columns, rows)
    return out / TABLE


def make_subject(
    seed: int, shape: Sequence[int] = SHAPE, sequences: int = SEQUENCES
) -> list[Image]:
    """Make registered sequences of one synthetic brain, 0 outside the head.

    Args:
        seed: any integer.
        shape: voxels (z, y, x).
        sequences: how many.
    """
    rng = np.random.default_rng(seed)
    tissues = _head(rng, shape)
    return [_random_image(rng, tissues) for _ in range(sequences)]


def make_acquired_subject(
    seed: int, shape: Sequence[int] = SHAPE
) -> dict[str, tuple[Acquisition, Image]]:
    """Make registered sequences of one synthetic brain by signal equations.

    Args:
        seed: any integer.
        shape: voxels (z, y, x).

    Returns:
        TR, TE and flip angle, and the image, by sequence.
    """
    rng = np.random.default_rng(seed)
    tissues = _head(rng, shape)
    result = {}
    for sequence in PROTOCOLS:
        acquired = draw_acquisition(rng, sequence)
        image = _scanned(rng, tissues, brightness(sequence, acquired))
        result[sequence] = acquired, image.astype(np.float32)
    return result


def _head(rng: np.random.Generator, shape: Sequence[int]) -> dict[str, Image]:
    """Draw the share of each tissue in each voxel: of a brain, lesions, and perhaps a skull."""
    tissues = anatomy(rng, tuple(shape))
    brain = np.stack(list(tissues.values())).sum(0) > 0.5
    for labels in _lesions(rng, tissues["white"], brain):
        for label, name in LESIONS.items():
            part = (labels == label).astype(float)
            tissues = {k: v * (1 - part) for k, v in tissues.items()}
            tissues[name] = tissues.get(name, 0) + part
    if rng.random() < 0.5:
        tissues |= _shell(rng, brain)
    return tissues


def _lesions(rng: np.random.Generator, white: Image, brain: np.ndarray) -> list[Labels]:
    """Draw up to two tumours, and in a third of the brains spots in the white matter."""
    lesions = [tumour(rng, white, brain) for _ in range(rng.choice(3, p=(0.3, 0.5, 0.2)))]
    if rng.random() < 1 / 3:
        spots = (smooth_noise(rng, white.shape, rng.uniform(1.2, 2.5)) > rng.uniform(2.0, 2.8)) & (
            white > 0.5
        )
        lesions.append(np.where(spots, 2, 0).astype(np.uint8))
    return lesions


def _shell(rng: np.random.Generator, brain: np.ndarray) -> dict[str, Image]:
    """Make bone and scalp around the brain, each a few voxels thick."""
    steps = (3.0, 1.0, 1.0)  # slices are about three pixels thick
    distance = ndimage.distance_transform_edt(~brain, sampling=steps) + 0.7 * smooth_noise(
        rng, brain.shape, 4
    )
    bone, scalp = rng.uniform(2, 5), rng.uniform(5, 9)
    outside = distance * ~brain
    return {
        "bone": ((outside > 0.5) & (outside <= bone)).astype(float),
        "scalp": ((outside > bone) & (outside <= scalp)).astype(float),
    }


def _random_image(rng: np.random.Generator, tissues: dict[str, Image]) -> Image:
    """Make one sequence: half of the time near a real contrast, else any."""
    near = rng.random() < 0.5
    real = dict(zip(TISSUES, CONTRASTS[str(rng.choice(list(CONTRASTS)))], strict=True))
    means = {
        t: m * rng.uniform(0.7, 1.3) if near else rng.uniform(0.05, 1.2) for t, m in real.items()
    }
    means |= {"bone": rng.uniform(0.0, 0.3), "scalp": rng.uniform(0.2, 1.2)}
    image = _scanned(rng, tissues, means)
    return (image ** np.exp(0.2 * rng.standard_normal())).astype(np.float32)


def _scanned(
    rng: np.random.Generator, tissues: Mapping[str, Image], means: Mapping[str, float]
) -> Image:
    """Make an image of tissues with texture, blur, bias field and noise; 0 outside the head."""
    image = sum(part * means[tissue] for tissue, part in tissues.items())
    inside = np.sum(list(tissues.values()), axis=0) > 0.5
    shape = inside.shape
    texture = 1 + rng.uniform(0.01, 0.08) * smooth_noise(rng, shape, rng.uniform(1.5, 5))
    blurred = ndimage.gaussian_filter(
        image * texture, (rng.uniform(0.1, 0.6), *[rng.uniform(0.2, 1.1)] * 2)
    )
    biased = blurred * np.exp(rng.uniform(0, 0.35) * smooth_noise(rng, shape, 30))
    level = rng.uniform(0.003, 0.06)
    noisy = np.hypot(
        biased + level * rng.standard_normal(shape), level * rng.standard_normal(shape)
    )
    return np.asarray(noisy * inside)


def _write_subject(out: Path, seed: int, signal_equations: bool) -> list[tuple[str, ...]]:
    subject = f"S{seed:06d}"
    rows: list[tuple[str, ...]] = []
    (out / subject).mkdir(exist_ok=True)
    made: dict[str, tuple[Acquisition | None, Image]] = {}
    if signal_equations:
        made |= make_acquired_subject(seed)
    else:
        made |= {f"contrast{n}": (None, image) for n, image in enumerate(make_subject(seed))}
    for sequence, (acquired, image) in made.items():
        path = Path(subject) / f"{sequence}.nii.gz"
        scaled = (image / image.max() * 1000).round().astype(np.int16)
        write_image(scaled, SPACING, out / path)
        parameters = [str(getattr(acquired, name)) for name in PARAMETERS] if acquired else []
        rows.append((subject, DATASET, sequence, str(path), LICENCE, *parameters))
    return rows
