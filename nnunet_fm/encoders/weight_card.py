"""What is known of a published checkpoint."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class WeightCard:
    """One checkpoint that people use.

    Attributes:
        name: `family_arch.weights`.
        architecture: name in the table of architectures.
        options: numerical options that the weights need (LayerNorm epsilon, rotary precision, qkv
            bias).
        licence: licence of the weights, not of the code.
        source: where to get them.
        pretrained_on: datasets seen in pretraining; to be kept apart from the data at hand.
        citation: arXiv number or DOI of the paper.
        sha256: of the published file, where known.
        allowed_missing: tensors that the file may lack; they keep their initial value.
        ignored: regular expressions of keys that the file may carry beside the encoder.
        shipped: file in the folder `weights`, for weights that come with this package.
        spatial_dims: 2 for slices, 3 for volumes.
        files: patterns of the published file's name, or of `folder/name` where all of a family are
            called alike.
        by_files_alone: for weights whose options cannot be seen in their tensors and may differ in
            a user's own file.
        intensity: of the pretraining images, where it is not the architecture's usual one.
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
