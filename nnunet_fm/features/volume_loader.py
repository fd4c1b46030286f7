"""Volumes read and preprocessed ahead of the encoder."""

from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_fm.data.perturbations import Perturbation
from nnunet_fm.data.preprocessing import bounding_box, preprocess_volume
from nnunet_fm.data.skull_stripping import find_stripper
from nnunet_fm.data.subject_table import Row
from nnunet_fm.data.volumes import BadVolumeError, read_volume
from nnunet_fm.features.intensity import with_intensity
from nnunet_fm.features.recipe import FeatureRecipe


@dataclass(frozen=True, eq=False)
class Wanted:
    """One volume of a table."""

    row: Row
    modality: str

    @property
    def path(self) -> Path:
        """Its file or DICOM folder."""
        return self.row.volumes[self.modality]


Prepared = tuple[str, np.ndarray | str]  # key, and the volume or the reason why there is none


def prepared(todo: dict[str, Wanted], recipe: FeatureRecipe, processes: int) -> Iterator[Prepared]:
    """Volumes in order, a few ahead of the encoder."""
    p = recipe.preprocessing
    shape, percentiles = tuple(p["shape"]), tuple(p["percentiles"])
    change = Perturbation.from_dict(recipe.perturbation)
    intensity = p.get("intensity", "")
    make = partial(
        _preprocess,
        shape=shape,
        percentiles=percentiles,
        strip=p["strip"],
        intensity=intensity,
        change=change,
    )
    if processes <= 0:
        yield from ((key, make(wanted)) for key, wanted in todo.items())
        return
    one_thread: dict[str, Any] = {"initializer": torch.set_num_threads, "initargs": (1,)}
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), **one_thread) as pool:
        ahead: list[tuple[str, Future[np.ndarray | str]]] = []
        remaining = iter(todo.items())
        try:
            while True:
                for key, wanted in islice(remaining, 2 * processes - len(ahead)):
                    ahead.append((key, pool.submit(make, wanted)))
                if not ahead:
                    return
                key, future = ahead.pop(0)
                yield key, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _preprocess(
    wanted: Wanted,
    shape: tuple[int, int, int],
    percentiles: tuple[float, float],
    strip: str,
    intensity: str,
    change: Perturbation | None,
) -> np.ndarray | str:
    try:
        volume, image = read_volume(wanted.path)
        brain = find_stripper(strip)(volume, image, wanted.row.mask)
        if change is not None:
            brain = brain & (volume != 0)  # what is the brain is decided on the clean volume
            bounding_box(brain)  # or it is a bad volume
            volume = change(volume, brain)
        prepared = preprocess_volume(volume, brain, shape, percentiles)
        return with_intensity(prepared, intensity).astype(np.float16)
    except (BadVolumeError, OSError) as error:
        return str(error)
