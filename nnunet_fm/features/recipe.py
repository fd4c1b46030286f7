"""Everything that the features of a volume depend on, and the cache key derived from it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, product
from typing import Any

from nnunet_fm.data.sequences import canonical_names, match_channels
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.json_files import parse_json
from nnunet_fm.internal.messages import some

FORMAT = 1  # of the files in the cache
NOT_KEYED = ("name",)
KEY_LENGTH = 32


@dataclass(frozen=True)
class FeatureRecipe:
    """Everything that features depend on, except the volume.

    Paths, dates, devices and batch sizes do not affect features and are not part of it.

    Attributes:
        name: weight card or file name of the encoder, for display; not part of the key.
        encoder: SHA-256 of the encoder's tensors.
        architecture: registered name of the architecture.
        options: numerical options of the architecture.
        layers: blocks whose CLS token is cached, counted from 0, each after the final norm.
        precision: `bfloat16` or `float32`.
        preprocessing: `shape` (z, y, x), `percentiles`, `strip` and the `version` of the code; of
            whole visits the `channels` too, and whether some may be `absent`.
        perturbation: perturbation of the raw volume, see `Perturbation.to_dict`; None for clean
            volumes.
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
        """Read a recipe that `to_json` wrote."""
        content = parse_json(text, "the recipe")
        content.pop("format")
        recipe = cls(**{**content, "layers": tuple(content["layers"])})
        kinds = {"name": str, "encoder": str, "architecture": str, "options": dict}
        kinds |= {"precision": str, "preprocessing": dict}
        wrong = [key for key, kind in kinds.items() if not isinstance(getattr(recipe, key), kind)]
        if wrong or not all(isinstance(layer, int) for layer in recipe.layers):
            raise InputError(f"{some(wrong) or 'layers'}: wrong type of value")
        return recipe

    def to_json(self) -> str:
        """Return canonical JSON, which is the same for equal recipes."""
        return json.dumps({**asdict(self), "format": FORMAT}, sort_keys=True)

    @property
    def channels(self) -> tuple[str, ...]:
        """Sequences of a visit that go through the encoder together; empty for single volumes."""
        return tuple(self.preprocessing.get("channels", ()))

    @property
    def unit(self) -> str:
        """What goes through the encoder at once: `volume`, or a whole `visit`."""
        return "visit" if self.channels else "volume"

    @property
    def shape_text(self) -> str:
        """Voxels of a volume in words, e.g. `48x64x64`."""
        return "x".join(str(side) for side in self.preprocessing.get("shape", ()))

    @property
    def input_text(self) -> str:
        """Size of a voxel if it is fixed, and the channels of whole visits, in words."""
        words = []
        if "spacing" in self.preprocessing:
            words.append("x".join(f"{side:g}" for side in self.preprocessing["spacing"]) + " mm")
        if self.channels:
            words.append("+".join(self.channels))
        return ", ".join(words)

    def inputs_of(self, columns: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the columns of each input that the volumes of a visit make.

        Args:
            columns: of the volumes that there are.

        Returns:
            Each column alone; or the columns of a whole visit, in the order of its channels, if it
            has any of them.
        """
        if not self.channels:
            return [(column,) for column in columns]
        places = match_channels(self.channels, columns)
        visit = tuple(columns[place] for place in places if place is not None)
        return [visit] if visit else []

    def possible_inputs(self, columns: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the columns of each input that a visit makes, or a selection of its volumes."""
        if not self.channels:
            return self.inputs_of(columns)
        names = canonical_names(columns)
        choices: list[list[tuple[str, ...]]] = []
        for channel in self.channels:
            own = [column for column, name in zip(columns, names, strict=True) if name == channel]
            choices.append([(), *((column,) for column in own)])
        selections = [tuple(chain(*parts)) for parts in product(*choices)]
        return [visit for visit in selections if visit]

    def lacking(self, columns: Sequence[str]) -> list[str]:
        """Return the sequences that a visit with these columns lacks and cannot do without."""
        if self.preprocessing.get("absent"):
            return []
        places = match_channels(self.channels, columns)
        return [name for name, place in zip(self.channels, places, strict=True) if place is None]

    def identity(self) -> str:
        """Return the SHA-256 of everything except the name."""
        content = json.loads(self.to_json())
        for field_name in NOT_KEYED:
            del content[field_name]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def key(self, input_sha256: str) -> str:
        """Return the key of a volume's entry.

        Args:
            input_sha256: SHA-256 of the bytes of the volume's files, and of its mask if used; of
                several volumes, their names with these.
        """
        return hashlib.sha256(f"{self.identity()}:{input_sha256}".encode()).hexdigest()[:KEY_LENGTH]
