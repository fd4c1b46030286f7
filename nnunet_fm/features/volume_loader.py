"""Read and preprocess volumes ahead of the encoder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float16

from nnunet_fm.data.perturbations import Perturbation
from nnunet_fm.data.preprocessing import (
    Box,
    Millimetres,
    bounding_box,
    crop_to_brains,
    resample_brain,
    resize_brain,
)
from nnunet_fm.data.sequences import match_channels
from nnunet_fm.data.skull_stripping import find_stripper
from nnunet_fm.data.subject_table import Row
from nnunet_fm.data.volumes import (
    BadVolumeError,
    check_same_grid,
    read_volume,
    voxel_size,
)
from nnunet_fm.encoders.intensity import rescale_intensity
from nnunet_fm.features.recipe import FeatureRecipe
from nnunet_fm.internal.messages import reason_of
from nnunet_fm.internal.processes import worker_pool

PreprocessedVolume = tuple[str, np.ndarray | str]  # key; volume, or reason why it cannot be used


@dataclass(frozen=True, eq=False)
class VolumeRef:
    """What an encoder is given at once: a volume of a visit, or several as its channels.

    Attributes:
        row: visit.
        columns: of the volumes in the table, in the order of the channels.
    """

    row: Row
    columns: tuple[str, ...]

    @property
    def modality(self) -> str:
        """Columns in one text, e.g. `T1+FLAIR`."""
        return "+".join(self.columns)

    @property
    def path(self) -> Path:
        """NIfTI file or DICOM folder of the first volume."""
        return self.row.volumes[self.columns[0]]


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
        channels=recipe.channels,
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
    channels: tuple[str, ...],
) -> np.ndarray | str:
    """Return the preprocessed volume, or the reason why it cannot be used."""
    try:
        boxes, before = _read_brains(reference, strip, perturbation)
        brains = []
        for box in boxes:
            if spacing is None:
                brain = resize_brain(box, shape, percentiles)
            else:
                brain = resample_brain(box, before, spacing, shape, percentiles)
            brains.append(rescale_intensity(brain, intensity).astype(np.float16))
        return _as_channels(reference, brains, channels) if channels else brains[0]
    except (BadVolumeError, OSError, MemoryError) as error:
        return reason_of(error)


def _read_brains(
    reference: VolumeRef, strip: str, perturbation: Perturbation | None
) -> tuple[list[Box], Millimetres]:
    """Return the brains of volumes, cropped to one box, and the size of their voxels."""
    volumes, brains, images = [], [], []
    seed_volume = None  # of a perturbation: one bias field for all volumes of a visit
    for column in reference.columns:
        try:
            volume, image = read_volume(reference.row.volumes[column])
            brain = find_stripper(strip)(volume, image, reference.row.mask)
            seed_volume = volume if seed_volume is None else seed_volume
            if perturbation is not None:
                brain = brain & (volume != 0)  # the brain is defined by the clean volume
                bounding_box(brain)  # raises BadVolumeError for an empty mask
                volume = perturbation(volume, brain, seed_volume)
        except BadVolumeError as error:
            if len(reference.columns) == 1:
                raise
            raise BadVolumeError(f"{column}: {error}") from None
        volumes.append(volume)
        brains.append(brain)
        images.append(image)
    check_same_grid(images)
    return crop_to_brains(volumes, brains), voxel_size(images[0])


def _as_channels(
    reference: VolumeRef, brains: Sequence[np.ndarray], channels: Sequence[str]
) -> Float16[np.ndarray, "c z y x"]:
    """Return a visit as the channels of an encoder; those that are absent are 0."""
    visit = np.zeros((len(channels), *brains[0].shape), np.float16)
    places = match_channels(channels, reference.columns)
    for channel, place in enumerate(places):
        if place is not None:
            visit[channel] = brains[place]
    return visit
