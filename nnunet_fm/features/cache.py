"""The feature cache: one safetensors file per volume, or visit, and key.

    CACHE/<encoder>-<recipe>/recipe.json
    CACHE/<encoder>-<recipe>/ab/<key>.safetensors   cls/2, cls/5, ...: (slices, d) float16;
                                                    pooled: (layers, d) float32
    CACHE/hashes.sqlite                             memo of input hashes; may be deleted

The name of an entry does not depend on a path or a date: data and cache can be moved, and another
encoder, preprocessing or input always gives another entry. Entries hold checksums and are written
atomically, without locks: two writers of one key write the same content, so the last one wins.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from nnunet_fm.data.sequences import canonical_names
from nnunet_fm.data.subject_table import Row, Table
from nnunet_fm.data.volumes import EXACT_ZERO, zero_is_rounded
from nnunet_fm.features.cache_entry import (
    Arrays,
    DamagedEntryError,
    read_entry,
    write_bytes,
    write_entry,
)
from nnunet_fm.features.content_hashes import InputHashes
from nnunet_fm.features.recipe import FeatureRecipe
from nnunet_fm.features.sources import (
    CONCAT,
    MEAN,
    Encoders,
    Source,
    check_complete,
    missing_message,
    sources_of,
)
from nnunet_fm.internal.atomic_files import leftovers
from nnunet_fm.internal.errors import InputError, MissingFileError, NonFiniteError
from nnunet_fm.internal.files import walk_files
from nnunet_fm.internal.json_files import read_utf8
from nnunet_fm.internal.messages import some

POOLED = "pooled"  # array of mean vectors, one per layer
RECIPE_FILE = "recipe.json"
ENTRY = ".safetensors"
QUARANTINED = ".corrupt"
STALE_SECONDS = 24 * 3600  # age at which a temporary file is taken for one of a dead writer


@dataclass(frozen=True)
class Entry:
    """A file of the cache, and its problem; empty if the file is intact."""

    path: Path
    problem: str = ""


class FeatureCache:
    """Features of volumes, by recipe and key.

    Args:
        folder: folder of the cache; created when the first entry is written.

    Raises:
        ValueError: there is a file of that name.

    Example:
        >>> cache = FeatureCache("feature_cache")
        >>> table = read_table("subjects.csv")  # doctest: +SKIP
        >>> names, x = cache.matrix(table, layer=11, encoder="braindino")  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(
                f"cache {folder} is a file; allowed: a folder, which need not exist yet"
            )
        self.hashes = InputHashes(self.folder / "hashes.sqlite")
        self._recipe_dirs: dict[str, Path] = {}

    def path(self, recipe: FeatureRecipe, key: str) -> Path:
        """Return the path of an entry, whether it exists or not."""
        return self._recipe_dir(recipe) / key[:2] / f"{key}{ENTRY}"

    def read(
        self, recipe: FeatureRecipe, key: str, names: Sequence[str] = (POOLED,)
    ) -> dict[str, np.ndarray] | None:
        """Read arrays of an entry and compare each with its checksum.

        A damaged entry is renamed to `.corrupt`, so that the next extraction writes it again.

        Returns:
            The arrays by name; None if there is no intact entry.

        Raises:
            KeyError: the entry is intact but has no such array.
        """
        path = self.path(recipe, key)
        if not path.is_file():
            return None
        try:
            return read_entry(path, key, names)
        except DamagedEntryError:
            with suppress(OSError):  # a read-only cache keeps the file, which counts as absent
                path.replace(path.with_suffix(f"{ENTRY}{QUARANTINED}"))
            return None

    def write(self, recipe: FeatureRecipe, key: str, arrays: Arrays) -> None:
        """Write an entry atomically.

        Raises:
            FloatingPointError: a value is NaN or infinite; nothing is written.
            OSError: the disk is full or not writable.
        """
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise NonFiniteError(f"{name} has values that are not finite; they are not kept")
        recipe_dir = self._recipe_dir(recipe)
        if not (recipe_dir / RECIPE_FILE).is_file():
            recipe_dir.mkdir(parents=True, exist_ok=True)
            write_bytes(recipe_dir / RECIPE_FILE, recipe.to_json().encode())
        path = self.path(recipe, key)
        path.parent.mkdir(exist_ok=True)
        write_entry(path, key, arrays)

    def recipes(self) -> list[FeatureRecipe]:
        """Return the recipes in the cache, sorted by encoder.

        Raises:
            ValueError: a recipe's file is damaged.
        """
        recipes = []
        for file in self.folder.glob(f"*/{RECIPE_FILE}"):
            try:
                recipes.append(FeatureRecipe.from_json(read_utf8(file)))
            except (ValueError, TypeError, KeyError) as error:
                raise InputError(
                    f"{file} is damaged ({type(error).__name__}: {error}); delete "
                    f"{file.parent} and rerun features extract"
                ) from None
        return sorted(recipes, key=lambda recipe: (recipe.name, recipe.identity()))

    def recipe(self, encoder: str | None = None) -> FeatureRecipe:
        """Return the only recipe of clean volumes, of the whole cache or of one encoder.

        Args:
            encoder: name of the encoder, or the beginning of its tensor hash or of the recipe's
                identity; any encoder if None.

        Raises:
            ValueError: no recipe fits, or several do.
        """
        recipes = [recipe for recipe in self.recipes() if recipe.perturbation is None]
        fitting = recipes
        if encoder is not None:
            fitting = [recipe for recipe in recipes if _is_called(recipe, encoder)]
        if len(fitting) != 1:
            raise InputError(self._which(fitting or recipes, encoder))
        return fitting[0]

    def _which(self, recipes: list[FeatureRecipe], encoder: str | None) -> str:
        """Message for a choice between recipes, of which none or several are called `encoder`."""
        if not recipes:
            return f"{self.folder} holds no features; type `nnunet-fm features extract` first"
        codes = [f"{r.identity()[:12]}, {r.shape_text}, {r.input_text}" for r in recipes]
        pairs = zip(recipes, codes, strict=True)
        names = some([f"{recipe.name} ({code.rstrip(', ')})" for recipe, code in pairs])
        if encoder is None:
            problem = f"holds features of {len(recipes)} encoders or settings"
        elif any(_is_called(recipe, encoder) for recipe in recipes):
            problem = f"holds features of {len(recipes)} settings of encoder {encoder!r}"
        else:
            problem = f"holds no features of encoder {encoder!r}"
        return f"{self.folder} {problem}: {names}. Choose one by its name, or by its code"

    def perturbed(self, recipe: FeatureRecipe) -> list[FeatureRecipe]:
        """Return the recipes of perturbed volumes with the same encoder and preprocessing."""
        return [
            other
            for other in self.recipes()
            if other.perturbation and replace(other, perturbation=None, name=recipe.name) == recipe
        ]

    def entries(self, recipe: FeatureRecipe) -> list[Path]:
        """Return the files of a recipe's entries, sorted."""
        return sorted(self._recipe_dir(recipe).glob(f"??/*{ENTRY}"))

    def key_of(self, recipe: FeatureRecipe, row: Row, columns: str | Sequence[str]) -> str:
        """Return the key of a volume of a table, or of several volumes of a visit.

        Args:
            recipe: of the features.
            row: visit.
            columns: of the volumes, see `FeatureRecipe.inputs_of`.

        Raises:
            FileNotFoundError: a volume's file does not exist.
        """
        columns = (columns,) if isinstance(columns, str) else columns
        digests = [self._digest_of(recipe, row, column) for column in columns]
        if not recipe.channels:
            return recipe.key(*digests)
        named = zip(canonical_names(columns), digests, strict=True)
        return recipe.key(json.dumps(sorted(named)))

    def _digest_of(self, recipe: FeatureRecipe, row: Row, column: str) -> str:
        mask = row.mask if recipe.preprocessing["strip"] == "mask" else None
        digest = self.hashes.sha256(row.volumes[column], mask)
        if zero_is_rounded(row.volumes[column]):
            digest += EXACT_ZERO  # before, its background was not 0
        return digest

    def keys_of(self, tables: Sequence[Table]) -> dict[str, set[str]]:
        """Return the keys of all volumes of some tables, by the identity of their recipe."""
        keys: dict[str, set[str]] = {}
        for recipe in self.recipes():
            keys[recipe.identity()] = {
                self.key_of(recipe, row, columns)
                for table in tables
                for row in table.rows
                for columns in recipe.possible_inputs(tuple(row.volumes))
            }
        return keys

    def matrix(
        self,
        table: Table,
        layer: int | None = None,
        encoder: Encoders = None,
        modalities: Sequence[str] | None = None,
        fusion: str = MEAN,
    ) -> tuple[list[str], Float[np.ndarray, "n d"]]:
        """Return the pooled features of a table, one vector per row.

        A vector is the mean over the volumes of a row (late fusion, BrainDINO section 4.3.2), or
        their vectors one behind the other; or that of the whole visit, if its volumes went through
        the encoder together (`features extract --together`).

        Args:
            table: visits; rows without any of the modalities, or with `concat` without one of
                them, are skipped.
            layer: block, counted from 0; the last one in the cache if None.
            encoder: a recipe, or the name of one as `recipe` takes it; with `concat`, also one of
                these for each modality.
            modalities: columns of images; all of the table's if None.
            fusion: `mean`, or `concat`.

        Returns:
            Names of the rows, `SUBJECT` or `SUBJECT/SESSION`, and a float32 array.

        Raises:
            FileNotFoundError: some volumes are not in the cache.
            ValueError: an unknown layer, modality or fusion, no row with such volumes, or see
                `recipe`.
        """
        columns = table.select_modalities(modalities)
        return self.vectors(table, self.sources(columns, encoder, layer, fusion), fusion)

    def sources(
        self,
        columns: Sequence[str],
        encoder: Encoders = None,
        layer: int | None = None,
        fusion: str = MEAN,
    ) -> list[Source]:
        """Return whose features the volumes of some columns have, see `matrix`."""
        return sources_of(self.recipe, columns, encoder, layer, fusion)

    def vectors(
        self, table: Table, sources: Sequence[Source], fusion: str = MEAN
    ) -> tuple[list[str], Float[np.ndarray, "n d"]]:
        """Return the pooled features of a table from known sources, see `matrix`."""
        check_complete(table, sources)
        columns = [name for source in sources for name in source.columns]
        names, vectors = [], []
        missing: list[tuple[Source, str]] = []
        for row in table.rows:
            pooled = []
            for source in sources:
                for together in source.inputs(row):
                    entry = self.read(source.recipe, self.key_of(source.recipe, row, together))
                    if entry is None:
                        missing.append((source, f"{row.name} {'+'.join(together)}"))
                    else:
                        pooled.append(entry[POOLED][source.layer])
            if fusion == CONCAT and len(pooled) == len(columns):
                names.append(row.name)
                vectors.append(np.concatenate(pooled).astype(np.float32))
            elif fusion == MEAN and pooled:
                names.append(row.name)
                vectors.append(np.mean(pooled, axis=0, dtype=np.float32))
        self.hashes.save()
        if missing:
            raise MissingFileError(missing_message(self.folder, table, missing))
        if not vectors:
            raise InputError(f"no row of {table.file} has all volumes of {', '.join(columns)}")
        return names, np.stack(vectors)

    def verify(self, recipe: FeatureRecipe) -> Iterator[Entry]:
        """Compare every array of every entry with its checksum; no file is changed."""
        for path in self.entries(recipe):
            try:
                read_entry(path, path.name.removesuffix(ENTRY), None)
                yield Entry(path)
            except DamagedEntryError as error:
                yield Entry(path, str(error))

    def garbage(self, keep: Mapping[str, set[str]] | None = None) -> list[Path]:
        """Return files, and temporary folders, that can be deleted.

        These are damaged entries, what dead writers left and, with `keep`, entries that
        no table names.

        Args:
            keep: keys to keep, by the identity of their recipe; None keeps all entries.
        """
        files = sorted(self.folder.glob(f"*/??/*{QUARANTINED}"))
        files += leftovers(self.folder, below=True)
        oldest = time.time() - STALE_SECONDS
        for path in walk_files(self.folder):
            is_temporary = path.name.startswith(".") and path.suffix == ".tmp"  # of version 0.1
            if is_temporary and path.stat().st_mtime < oldest:
                files.append(path)
        if keep is not None:
            for recipe in self.recipes():
                keys = keep.get(recipe.identity(), set())
                for path in self.entries(recipe):
                    if path.name.removesuffix(ENTRY) not in keys:
                        files.append(path)
        return files

    def _recipe_dir(self, recipe: FeatureRecipe) -> Path:
        """Return the directory of a recipe.

        Reuses a directory created under another name of the same encoder.
        """
        identity = recipe.identity()
        if identity not in self._recipe_dirs:
            name = re.sub(r"[^A-Za-z0-9]+", "_", recipe.name)
            existing = next(self.folder.glob(f"*-{identity[:12]}"), None)
            self._recipe_dirs[identity] = existing or self.folder / f"{name}-{identity[:12]}"
        return self._recipe_dirs[identity]


def _is_called(recipe: FeatureRecipe, text: str) -> bool:
    """Return whether `text` is the encoder's name or the beginning of a hash of the recipe."""
    if recipe.name == text:
        return True
    return recipe.encoder.startswith(text) or recipe.identity().startswith(text)
