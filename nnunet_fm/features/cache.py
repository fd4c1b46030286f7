"""The feature cache: one safetensors file per volume and key, with checksums inside; written atomically, without locks.

    CACHE/<encoder>-<recipe>/recipe.json
    CACHE/<encoder>-<recipe>/ab/<key>.safetensors    cls/2 cls/5 ... (n, d) float16; pooled (layers,
    d) float32 CACHE/hashes.sqlite                               a memo of input hashes; may be
    deleted

Nothing of an entry's name comes from a path or a date: data and cache can be moved, and another
encoder, preprocessing or input always is another entry. Two writers of one key write the same
content, so the last rename wins.
"""

import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from nnunet_fm.data.subject_table import Row, Table
from nnunet_fm.features.content_hashes import InputHashes
from nnunet_fm.features.recipe import FeatureRecipe
from nnunet_fm.internal.errors import InputError, MissingFileError, NonFiniteError
from nnunet_fm.internal.files import TEMPORARY, replaced_atomically
from nnunet_fm.internal.messages import some

POOLED, SUMS, KEY = "pooled", "sha256", "key"
RECIPE, ENTRY, ASIDE = "recipe.json", ".safetensors", ".corrupt"
STALE = 24 * 3600  # seconds after which a temporary file has lost its writer
Arrays = Mapping[str, Shaped[np.ndarray, "..."]]


@dataclass(frozen=True)
class Entry:
    """A file of the cache and what is wrong with it; nothing if it is sound."""

    path: Path
    problem: str = ""


class FeatureCache:
    """Features by recipe and key.

    Args:
        folder: made when the first entry is written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.hashes = InputHashes(self.folder / "hashes.sqlite")
        self._homes: dict[str, Path] = {}

    def path(self, recipe: FeatureRecipe, key: str) -> Path:
        """Where an entry is, or would be."""
        return self._home(recipe) / key[:2] / f"{key}{ENTRY}"

    def read(
        self, recipe: FeatureRecipe, key: str, names: Sequence[str] = (POOLED,)
    ) -> dict[str, np.ndarray] | None:
        """The named arrays of an entry, each compared with its checksum; None if there is no sound entry.

        A damaged entry is set aside (`.corrupt`), so that it is made again.

        Raises:
            KeyError: the entry is sound and does not keep such an array.
        """
        path = self.path(recipe, key)
        if not path.is_file():
            return None
        try:
            return _read(path, key, names)
        except _DamagedError:
            with suppress(OSError):  # in a read-only cache it stays, and is as if it were not there
                path.replace(path.with_suffix(f"{ENTRY}{ASIDE}"))
            return None

    def write(self, recipe: FeatureRecipe, key: str, arrays: Arrays) -> None:
        """Add an entry, atomically.

        Raises:
            FloatingPointError: a value is NaN or infinite; nothing is written.
            OSError: the disk is full or not writable.
        """
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise NonFiniteError(f"{name} has values that are not finite; they are not kept")
        home = self._home(recipe)
        if not (home / RECIPE).is_file():
            home.mkdir(parents=True, exist_ok=True)
            _replace(home / RECIPE, recipe.to_json().encode())
        content = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        sums = {name: _sha256(array) for name, array in content.items()}
        path = self.path(recipe, key)
        path.parent.mkdir(exist_ok=True)
        _replace(path, save(content, metadata={KEY: key, SUMS: json.dumps(sums)}))

    def recipes(self) -> list[FeatureRecipe]:
        """Of everything in the cache, sorted by encoder."""
        found = [
            FeatureRecipe.from_json(p.read_text()) for p in sorted(self.folder.glob(f"*/{RECIPE}"))
        ]
        return sorted(found, key=lambda r: (r.name, r.identity()))

    def recipe(self, encoder: str | None = None) -> FeatureRecipe:
        """The only recipe of clean volumes in the cache, or the only one of an encoder.

        Args:
            encoder: its name, or the beginning of its tensor hash or of the recipe's identity.

        Raises:
            ValueError: there is none, or several.
        """
        found = [r for r in self.recipes() if r.perturbation is None]
        fitting = [r for r in found if encoder is None or r.name == encoder or _begins(r, encoder)]
        if len(fitting) != 1:
            names = [f"{r.name} ({r.identity()[:12]})" for r in fitting or found]
            raise InputError(
                f"{len(fitting)} recipes in {self.folder} fit encoder {encoder!r}; "
                f"it holds {some(names) or 'nothing'}. Name one, by its name or by what stands in brackets"
            )
        return fitting[0]

    def perturbed(self, recipe: FeatureRecipe) -> list[FeatureRecipe]:
        """What the cache has of the same encoder and preprocessing under perturbations."""
        return [
            r
            for r in self.recipes()
            if r.perturbation and replace(r, perturbation=None, name=recipe.name) == recipe
        ]

    def entries(self, recipe: FeatureRecipe) -> list[Path]:
        """Files of a recipe's entries."""
        return sorted(self._home(recipe).glob(f"??/*{ENTRY}"))

    def key_of(self, recipe: FeatureRecipe, row: Row, modality: str) -> str:
        """Key of a volume of a table.

        Raises:
            FileNotFoundError: the volume's file is not there.
        """
        mask = row.mask if recipe.preprocessing["strip"] == "mask" else None
        return recipe.key(self.hashes.sha256(row.volumes[modality], mask))

    def matrix(
        self,
        table: Table,
        layer: int | None = None,
        encoder: str | FeatureRecipe | None = None,
        modalities: Sequence[str] | None = None,
    ) -> tuple[list[str], Float[np.ndarray, "n d"]]:
        """Pooled features of a table: a vector per row, the mean over its volumes (late fusion, paper section 4.3.2).

        Args:
            table: rows without any of the modalities are left out.
            layer: block, 0-based; the last one kept if None.
            encoder: a recipe, or which one, see `recipe`.
            modalities: columns; all of the table's if None.

        Returns:
            Names of the rows, `SUBJECT` or `SUBJECT/SESSION`, and a float32 array.

        Raises:
            FileNotFoundError: volumes that are not in the cache.
            ValueError: an unknown layer or modality, or see `recipe`.
        """
        recipe = encoder if isinstance(encoder, FeatureRecipe) else self.recipe(encoder)
        asked = table.select_modalities(modalities)
        if layer is not None and layer not in recipe.layers:
            raise InputError(
                f"layer {layer} is not kept; allowed: {', '.join(map(str, recipe.layers))}"
            )
        place = recipe.layers.index(recipe.layers[-1] if layer is None else layer)
        names, vectors, missing = [], [], []
        for row in table.rows:
            there = [m for m in asked if m in row.volumes]
            found = [self.read(recipe, self.key_of(recipe, row, m)) for m in there]
            missing += [f"{row.name} {m}" for m, f in zip(there, found, strict=True) if f is None]
            kept = [f[POOLED][place] for f in found if f is not None]
            if kept:
                names.append(row.name)
                vectors.append(np.mean(kept, axis=0, dtype=np.float32))
        self.hashes.save()
        if missing:
            change = "".join(
                f" --perturb {p['family']}={p['severity']}" for p in (recipe.perturbation,) if p
            )
            raise MissingFileError(
                f"{len(missing)} volumes of {table.file} are not in the cache: {some(missing)}; "
                f"type: nnunet-fm features extract {table.file} --encoder {recipe.name} --cache {self.folder}{change}"
            )
        return names, np.stack(vectors)

    def verify(self, recipe: FeatureRecipe) -> Iterator[Entry]:
        """Read every array of every entry and compare it with its checksum; nothing is changed."""
        for path in self.entries(recipe):
            try:
                _read(path, path.name.removesuffix(ENTRY), None)
                yield Entry(path)
            except _DamagedError as error:
                yield Entry(path, str(error))

    def rubbish(self, keep: Mapping[str, set[str]] | None = None) -> list[Path]:
        """Files that can go: entries set aside, temporary files of dead writers and, if asked, entries without a table.

        Args:
            keep: keys to keep, by the identity of their recipe; None keeps all.
        """
        found = sorted(self.folder.glob(f"*/??/*{ASIDE}"))
        old = time.time() - STALE
        found += [p for p in sorted(self.folder.rglob(f".*{TEMPORARY}")) if p.stat().st_mtime < old]
        for recipe in self.recipes() if keep is not None else ():
            wanted = (keep or {}).get(recipe.identity(), set())
            found += [p for p in self.entries(recipe) if p.name.removesuffix(ENTRY) not in wanted]
        return found

    def _home(self, recipe: FeatureRecipe) -> Path:
        """Folder of a recipe; one that was begun under another name of the same encoder is gone on with."""
        identity = recipe.identity()
        if identity not in self._homes:
            fresh = self.folder / f"{re.sub(r'[^A-Za-z0-9]+', '_', recipe.name)}-{identity[:12]}"
            self._homes[identity] = next(self.folder.glob(f"*-{identity[:12]}"), fresh)
        return self._homes[identity]


class _DamagedError(Exception):
    pass


def _read(path: Path, key: str, names: Sequence[str] | None) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, "np") as stream:
            about, there = stream.metadata() or {}, list(stream.keys())
            arrays = {name: stream.get_tensor(name) for name in names or there if name in there}
            sums = json.loads(about[SUMS])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise _DamagedError(f"cannot be read: {error}") from None
    if about.get(KEY) != key:
        raise _DamagedError(f"holds the key {about.get(KEY)}")
    if absent := sorted(set(names or ()) - set(there)):
        raise KeyError(
            f"no {some(absent)} in the cache's entry; it keeps: {', '.join(sorted(there))}"
        )
    for name, array in arrays.items():
        if _sha256(array) != sums.get(name):
            raise _DamagedError(f"{name} no longer has its checksum")
    return arrays


def _sha256(array: np.ndarray) -> str:
    digest = hashlib.sha256(f"{array.dtype}:{array.shape}:".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _replace(path: Path, content: bytes) -> None:
    with replaced_atomically(str(path), several_writers=True) as temporary:
        Path(temporary).write_bytes(content)


def _begins(recipe: FeatureRecipe, text: str) -> bool:
    return recipe.encoder.startswith(text) or recipe.identity().startswith(text)
