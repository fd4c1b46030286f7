"""Preprocessed volumes on disk, for trainings that read them in every epoch."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from nnunet_fm.features.cache import FeatureCache
from nnunet_fm.features.recipe import FeatureRecipe
from nnunet_fm.features.volume_loader import VolumeRef, iter_preprocessed
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.messages import counted, some

FOLDER = "volumes"  # in the folder of a feature cache
ARRAY = "volume"


def volume_cache(cache: FeatureCache) -> FeatureCache:
    """Return the cache of volumes inside a feature cache; both know the same hashes of files."""
    inside = FeatureCache(cache.folder / FOLDER)
    inside.hashes = cache.hashes
    return inside


class PreparedVolumes:
    """Volumes as an encoder gets them, by key, kept as a feature cache keeps its vectors.

    Encoders with the same preprocessing share the volumes. Nothing is read or written before
    `prepare`.

    Args:
        cache: feature cache; the volumes are in its folder `volumes`.
        recipe: of the encoder's features; only its preprocessing matters.
        volumes: of a table.
        processes: that read and preprocess; 0: this one.

    Attributes:
        keys: of the volumes.

    Raises:
        FileNotFoundError: a file does not exist.
    """

    def __init__(
        self,
        cache: FeatureCache,
        recipe: FeatureRecipe,
        volumes: Sequence[VolumeRef],
        processes: int = 2,
    ) -> None:
        self._cache = volume_cache(cache)
        self._recipe = FeatureRecipe(FOLDER, "", "", {}, (), "float16", recipe.preprocessing)
        self._processes = processes
        self.keys = [self._cache.key_of(self._recipe, v.row, v.columns) for v in volumes]
        self._volumes = dict(zip(self.keys, volumes, strict=True))
        cache.hashes.save()

    def prepare(self) -> None:
        """Preprocess the volumes that are not on the disk yet.

        Raises:
            ValueError: volumes that cannot be used.
        """
        missing = {
            key: volume
            for key, volume in self._volumes.items()
            if self._cache.read(self._recipe, key, (ARRAY,)) is None
        }
        made = iter_preprocessed(missing, self._recipe, self._processes)
        failures = []
        for key, values in tqdm(made, total=len(missing), desc="volumes", disable=not missing):
            if isinstance(values, str):
                failures.append(f"{missing[key].row.name} {missing[key].modality} ({values})")
            else:
                self._cache.write(self._recipe, key, {ARRAY: values})
        if failures:
            raise InputError(
                f"{counted(len(failures), 'volume')} cannot be used: {some(failures)}; remove "
                "the rows from the table, or mend the files"
            )

    def read(self, keys: Sequence[str]) -> Float[Tensor, "b c z y x"]:
        """Read volumes, or whole visits, as one batch in float32.

        Raises:
            FileNotFoundError: a volume has disappeared, or its file is damaged.
        """
        arrays = []
        for key in keys:
            entry = self._cache.read(self._recipe, key, (ARRAY,))
            if entry is None:
                raise MissingFileError(
                    f"volume {key} is missing from {self._cache.folder}, or damaged; rerun the "
                    "command to prepare it again"
                )
            arrays.append(entry[ARRAY])
        batch = torch.from_numpy(np.stack(arrays).astype(np.float32))
        return batch if self._recipe.channels else batch[:, None]
