"""Read and preprocess volumes ahead of the encoder."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from nnunet_fm.data.perturbations import Perturbation
from nnunet_fm.data.preprocessing import (
    Millimetres,
    bounding_box,
    preprocess_volume,
    resample_volume,
)
from nnunet_fm.data.skull_stripping import find_stripper
from nnunet_fm.data.subject_table import Row
from nnunet_fm.data.volumes import BadVolumeError, read_volume, voxel_size
from nnunet_fm.encoders.intensity import rescale_intensity
from nnunet_fm.features.recipe import FeatureRecipe
from nnunet_fm.internal.messages import reason_of
from nnunet_fm.internal.processes import worker_pool

PreprocessedVolume = tuple[str, np.ndarray | str]  # key; volume, or reason why it cannot be used


@dataclass(frozen=True, eq=False)
class VolumeRef:
    """A volume of a table: one modality of one visit."""

    row: Row
    modality: str

    @property
    def path(self) -> Path:
        """NIfTI file or DICOM folder."""
        return self.row.volumes[self.modality]


def iter_preprocessed(
    volumes: Mapping[str, VolumeRef], recipe: FeatureRecipe, processes: int
) -> Iterator[PreprocessedVolume]:
    """Preprocess volumes in order, in processes that run a few volumes ahead of the caller.

    Args:
        volumes: volumes by key.
        recipe: how they are preprocessed.
        processes: number of processes; 0 preprocesses in this one.

    Yields:
        Key, and the float16 volume or the reason why it cannot be used.
    """
    settings = recipe.preprocessing
    preprocess = partial(
        _preprocess,
        shape=tuple(settings["shape"]),
        percentiles=tuple(settings["percentiles"]),
        strip=settings["strip"],
        intensity=settings.get("intensity", ""),
        perturbation=Perturbation.from_dict(recipe.perturbation),
        spacing=tuple(settings["spacing"]) if "spacing" in settings else None,
    )
    if processes > 0:
        yield from _in_processes(volumes, preprocess, processes)
        return
    for key, volume in volumes.items():
        yield key, preprocess(volume)


def _in_processes(
    volumes: Mapping[str, VolumeRef],
    preprocess: Callable[[VolumeRef], np.ndarray | str],
    processes: int,
) -> Iterator[PreprocessedVolume]:
    with worker_pool(processes, partial(torch.set_num_threads, 1)) as pool:
        ahead: list[tuple[str, Future[np.ndarray | str]]] = []
        remaining = iter(volumes.items())
        try:
            while True:
                for key, volume in islice(remaining, 2 * processes - len(ahead)):
                    ahead.append((key, pool.submit(preprocess, volume)))
                if not ahead:
                    return
                key, future = ahead.pop(0)
                yield key, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _preprocess(
    reference: VolumeRef,
    shape: tuple[int, int, int],
    percentiles: tuple[float, float],
    strip: str,
    intensity: str,
    perturbation: Perturbation | None,
    spacing: Millimetres | None,
) -> np.ndarray | str:
    """Return the preprocessed volume, or the reason why it cannot be used."""
    try:
        volume, image = read_volume(reference.path)
        brain = find_stripper(strip)(volume, image, reference.row.mask)
        if perturbation is not None:
            brain = brain & (volume != 0)  # the brain is defined by the clean volume
            bounding_box(brain)  # raises BadVolumeError for an empty mask
            volume = perturbation(volume, brain)
        if spacing is None:
            preprocessed = preprocess_volume(volume, brain, shape, percentiles)
        else:
            before = voxel_size(image)
            preprocessed = resample_volume(volume, brain, before, spacing, shape, percentiles)
        return rescale_intensity(preprocessed, intensity).astype(np.float16)
    except (BadVolumeError, OSError, MemoryError) as error:
        return reason_of(error)
