"""What is known about a published checkpoint."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class WeightCard:
    """One published checkpoint.

    Attributes:
        name: `family_arch.weights`.
        architecture: name in the registry.
        licence: of the weights, not of the code.
        source: where to get them.
        options: numerical options that the weights need (LayerNorm epsilon, rotary precision, ...).
        pretrained_on: datasets used in pretraining; keep them apart from your test cases.
        citation: arXiv number or DOI of the paper.
        sha256: of the published file, if known.
        allowed_missing: tensors that the file may lack; they keep their initial value.
        ignored: regular expressions of keys that the file may hold besides the encoder.
        shipped: file in the folder `weights`, for weights that come with this package.
        spatial_dims: 2 for slices, 3 for volumes.
        files: patterns of the published file's name, or of `folder/name` if all files of a family
            have the same name.
        by_files_alone: whether only the file name can tell these weights from a user's own file
            with the same tensors and other options.
        intensity: of the pretraining images, if it is not the architecture's usual one.
    """

    name: str
    architecture: str
    licence: str
    source: str
    options: dict[str, Any] = field(default_factory=dict)
    pretrained_on: tuple[str, ...] = ()
    citation: str = ""
    sha256: str | None = None
    allowed_missing: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    shipped: str | None = None
    spatial_dims: int = 2
    files: tuple[str, ...] = ()
    by_files_alone: bool = False
    intensity: str | None = None
