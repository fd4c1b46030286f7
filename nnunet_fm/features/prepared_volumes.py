"""Preprocessed volumes on disk, for trainings that read them in every epoch."""

from collections.abc import Sequence
from pathlib import Path

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


class PreparedVolumes:
    """Volumes as an encoder gets them, by key, kept as a feature cache keeps its vectors.

    Encoders with the same preprocessing share the volumes.

    Args:
        folder: folder of a feature cache; the volumes are in its folder `volumes`.
        recipe: of the encoder's features; only its preprocessing matters.
    """

    def __init__(self, folder: Path, recipe: FeatureRecipe) -> None:
        self.cache = FeatureCache(folder / FOLDER)
        self.recipe = FeatureRecipe(FOLDER, "", "", {}, (), "float16", recipe.preprocessing)

    def prepare(self, volumes: Sequence[VolumeRef], processes: int = 2) -> list[str]:
        """Preprocess the volumes that are not on the disk yet; return the key of each.

        Args:
            volumes: of a table.
            processes: that read and preprocess; 0: this one.

        Raises:
            FileNotFoundError: a file does not exist.
            ValueError: volumes that cannot be used.
        """
        keys = [self.cache.key_of(self.recipe, v.row, v.modality) for v in volumes]
        self.cache.hashes.save()
        missing = {
            key: volume
            for key, volume in zip(keys, volumes, strict=True)
            if self.cache.read(self.recipe, key, ()) is None
        }
        made = iter_preprocessed(missing, self.recipe, processes)
        failures = []
        for key, values in tqdm(made, total=len(missing), desc="volumes", disable=not missing):
            if isinstance(values, str):
                failures.append(f"{missing[key].row.name} {missing[key].modality} ({values})")
            else:
                self.cache.write(self.recipe, key, {ARRAY: values})
        if failures:
            raise InputError(
                f"{counted(len(failures), 'volume')} cannot be used: {some(failures)}; remove "
                "the rows from the table, or mend the files"
            )
        return keys

    def read(self, keys: Sequence[str]) -> Float[Tensor, "b 1 z y x"]:
        """Read volumes as one batch in float32.

        Raises:
            FileNotFoundError: a volume has disappeared, or its file is damaged.
        """
        arrays = []
        for key in keys:
            entry = self.cache.read(self.recipe, key, (ARRAY,))
            if entry is None:
                raise MissingFileError(
                    f"volume {key} is missing from {self.cache.folder}, or damaged; rerun the "
                    "command to prepare it again"
                )
            arrays.append(entry[ARRAY])
        return torch.from_numpy(np.stack(arrays).astype(np.float32))[:, None]
