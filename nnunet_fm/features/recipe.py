"""What decides the features of a volume, and the key that follows from it."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

FORMAT = 1  # of the files in the cache
NOT_KEYED = ("name",)
KEY_LENGTH = 32


@dataclass(frozen=True)
class FeatureRecipe:
    """Everything that features depend on but the volume itself. Paths, dates, devices and batch sizes have no part.

    Attributes:
        name: weight card or file name of the encoder, for people; not part of the key.
        encoder: SHA-256 of the encoder's tensors.
        architecture: its name in the table of architectures.
        options: its numerical options.
        layers: blocks whose CLS token is kept, 0-based, each after the final norm.
        precision: `bfloat16` or `float32`.
        preprocessing: `shape` (z, y, x), `percentiles`, `strip` and the `version` of the code.
        perturbation: done to the volume first, see `Perturbation.to_dict`; None for clean volumes.
    """

    name: str
    encoder: str
    architecture: str
    options: dict[str, Any]
    layers: tuple[int, ...]
    precision: str
    preprocessing: dict[str, Any] = field(default_factory=dict)
    perturbation: dict[str, Any] | None = None

    @classmethod
    def from_json(cls, text: str) -> "FeatureRecipe":
        """The inverse of `to_json`."""
        content = json.loads(text)
        content.pop("format")
        return cls(**{**content, "layers": tuple(content["layers"])})

    def to_json(self) -> str:
        """Canonical text, the same for equal recipes."""
        return json.dumps({**asdict(self), "format": FORMAT}, sort_keys=True)

    def identity(self) -> str:
        """SHA-256 of everything but the name."""
        content = {k: v for k, v in json.loads(self.to_json()).items() if k not in NOT_KEYED}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def key(self, input_sha256: str) -> str:
        """Name of a volume's entry.

        Args:
            input_sha256: of the bytes of the volume's files, its mask included if that is used.
        """
        return hashlib.sha256(f"{self.identity()}:{input_sha256}".encode()).hexdigest()[:KEY_LENGTH]
