"""What the probes feed to an encoder: single slices, or whole volumes."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Integer

from nnunet_fm.data.sequences import match_channels
from nnunet_fm.data.skull_stripping import Stripper
from nnunet_fm.encoders import Encoder
from nnunet_fm.encoders.contract import InputSpec
from nnunet_fm.internal.errors import InputError
from nnunet_fm_pretrain.data.preprocessing import Preprocessing, Triple, VolumePreprocessing
from nnunet_fm_pretrain.probing import features, volume_features
from nnunet_fm_pretrain.probing.linear_probes import Features

Values = Float[np.ndarray, "z y x"]
Case = tuple[Float[np.ndarray, "c z y x"], Integer[np.ndarray, "z y x"]]


class ProbeInputs(ABC):
    """How subjects and patches are read, and what an encoder makes of them.

    Attributes:
        raw: what raw values are called in results.
        dims: axes of a patch.
    """

    raw: ClassVar[str]
    dims: ClassVar[int]

    @abstractmethod
    def read_subject(self, path: Path, mask: Path | None, strip: Stripper) -> Values:
        """Read a volume as pretraining sees it."""

    @abstractmethod
    def vector(self, encoder: Encoder | None, values: Values) -> Float[np.ndarray, " d"]:
        """Return the features of a subject; raw values if there is no encoder."""

    @abstractmethod
    def read_case(self, raw: Path, case: str, channels: Sequence[int], ending: str) -> Case:
        """Read some channels, by number, and the labels of a case of an nnU-Net raw dataset."""

    @abstractmethod
    def patches(self, encoder: Encoder | None, case: Case, patch: int, context: int) -> Features:
        """Return a row per patch of a case; raw values of a window if there is no encoder."""

    @abstractmethod
    def labels(self, case: Case, patch: int) -> Integer[np.ndarray, " n"]:
        """Return 1 for each patch of which half is labelled, else 0."""


class SliceInputs(ProbeInputs):
    """Slices of a cube for subjects, and all slices of a case.

    An encoder of adjacent slices gets the neighbours of each slice too.

    Args:
        options: as in pretraining; `size` is the side of a case's slices too.
    """

    raw, dims = "pixels", 2

    def __init__(self, options: Preprocessing) -> None:
        self.options = options

    def read_subject(self, path: Path, mask: Path | None, strip: Stripper) -> Values:
        """Read the slices of a volume."""
        return features.read_slices(path, mask, strip, self.options)

    def vector(self, encoder: Encoder | None, values: Values) -> Float[np.ndarray, " d"]:
        """Average the CLS token, or raw pixels, over the slices."""
        return features.slice_features(encoder, values)

    def read_case(self, raw: Path, case: str, channels: Sequence[int], ending: str) -> Case:
        """Read a case, its slices resized."""
        return features.read_case(raw, case, channels, ending, self.options.size)

    def patches(self, encoder: Encoder | None, case: Case, patch: int, context: int) -> Features:
        """Return the tokens of all slices, or raw pixels."""
        return features.patch_features(encoder, case[0], patch, context)

    def labels(self, case: Case, patch: int) -> Integer[np.ndarray, " n"]:
        """Label the patches of all slices."""
        return features.patch_labels(case[1], patch)


class VolumeInputs(ProbeInputs):
    """Whole volumes.

    Args:
        spacing: size of a voxel in mm (z, y, x).
        intensity: of the encoder's pretraining.
        window: edge of the cubes in voxels that the encoder was pretrained on.
    """

    raw, dims = "voxels", 3

    def __init__(self, spacing: Triple, intensity: str, window: int) -> None:
        VolumePreprocessing(spacing)  # checks the range
        self.spacing, self.intensity, self.window = spacing, intensity, window

    def read_subject(self, path: Path, mask: Path | None, strip: Stripper) -> Values:
        """Read a volume at the spacing, cropped to the brain."""
        return volume_features.read_whole(path, mask, strip, self.spacing, self.intensity)

    def vector(self, encoder: Encoder | None, values: Values) -> Float[np.ndarray, " d"]:
        """Return the encoder's vector, or the volume shrunk."""
        return volume_features.volume_vector(encoder, values)

    def read_case(self, raw: Path, case: str, channels: Sequence[int], ending: str) -> Case:
        """Read a case at the spacing."""
        return volume_features.read_volume_case(
            raw, case, channels, ending, self.spacing, self.intensity, self.window
        )

    def patches(self, encoder: Encoder | None, case: Case, patch: int, context: int) -> Features:
        """Return the tokens of the volume, or raw voxels."""
        return volume_features.cube_features(encoder, case[0], patch, context)

    def labels(self, case: Case, patch: int) -> Integer[np.ndarray, " n"]:
        """Label the patches of the volume."""
        return volume_features.cube_labels(case[1], patch)


def inputs_for(
    encoders: Mapping[str, Encoder], slices: Preprocessing, spacing: Triple | None
) -> ProbeInputs:
    """Return what the encoders take.

    Args:
        encoders: of one network.
        slices: for encoders of slices.
        spacing: for encoders of volumes; None: that of the pretraining, if the file names it.

    Raises:
        ValueError: a spacing for an encoder of slices, none for one of volumes, or an encoder of
            volumes that takes several sequences together.
    """
    spec = next(iter(encoders.values())).input_spec
    if spec.spatial_dims == SliceInputs.dims:
        if spacing is not None:
            raise InputError("--spacing is for encoders of volumes; this one takes slices (--size)")
        if spec.slices > 1:
            slices = replace(slices, slices=slices.size)
        return SliceInputs(slices)
    check_one_image(spec)
    known: Any = spacing or spec.spacing
    if known is None:
        raise InputError(
            "the file does not name the spacing of its pretraining; add --spacing Z Y X"
        )
    return VolumeInputs(known, spec.intensity, max(spec.native_size))


def check_one_image(spec: InputSpec) -> None:
    """Raise ValueError if an encoder takes several sequences together."""
    if spec.modalities is not None and len(spec.modalities) > 1:
        allowed = "an encoder of one image"
        if spec.subsets:
            allowed = f"one of them: --encoder-option modalities='[\"{spec.modalities[0]}\"]'"
        raise InputError(
            f"the encoder takes {', '.join(spec.modalities)} together, and this probe has one "
            f"image; allowed: {allowed}"
        )


def probed_channels(spec: InputSpec, dataset: str, names: Sequence[str]) -> list[int]:
    """Return the numbers of a dataset's channels that an encoder takes.

    Args:
        spec: of the encoder.
        dataset: name of the dataset.
        names: of its channels.

    Returns:
        All channels; those of the encoder's sequences, in its order, if it knows them by name.

    Raises:
        ValueError: the dataset lacks one of the sequences.
    """
    if spec.modalities is None:
        return list(range(len(names)))
    numbers = match_channels(spec.modalities, names)
    present = [name for name, n in zip(spec.modalities, numbers, strict=True) if n is not None]
    if len(present) < len(numbers):
        allowed = "an encoder of its channels"
        if spec.subsets and present:
            allowed = f"--encoder-option modalities='{json.dumps(present)}'"
        raise InputError(
            f"the encoder takes {', '.join(spec.modalities)}, and {dataset} has "
            f"{', '.join(names)}; allowed: {allowed}"
        )
    return [n for n in numbers if n is not None]
