"""Whose features the volumes of a table have: one encoder's, or one encoder's for each modality."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_fm.data.subject_table import Table
from nnunet_fm.features.recipe import FeatureRecipe
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import counted, some

MEAN, CONCAT = "mean", "concat"  # how the vectors of a row's volumes are joined
Encoders = str | FeatureRecipe | Mapping[str, str] | Mapping[str, FeatureRecipe] | None
Find = Callable[[str | None], FeatureRecipe]  # `FeatureCache.recipe`


@dataclass(frozen=True)
class Source:
    """Whose features the volumes of some columns have.

    Attributes:
        recipe: of the features.
        columns: of the volumes.
        layer: place of the block among those of the recipe.
    """

    recipe: FeatureRecipe
    columns: tuple[str, ...]
    layer: int


def sources_of(
    find: Find, columns: Sequence[str], encoder: Encoders, layer: int | None, fusion: str
) -> list[Source]:
    """Return whose features the columns have: all of one recipe, or each of its own.

    Args:
        find: returns the recipe of a name.
        columns: of volumes.
        encoder: see `FeatureCache.matrix`.
        layer: block, counted from 0; the last one in the cache if None.
        fusion: `mean` or `concat`.

    Raises:
        InputError: see `FeatureCache.matrix`.
    """
    if fusion not in (MEAN, CONCAT):
        raise InputError(f"fusion {fusion!r}; allowed: {MEAN}, {CONCAT}")
    if isinstance(encoder, Mapping):
        if fusion == MEAN:
            raise InputError(
                f"an encoder for each modality with fusion={MEAN}; allowed: fusion={CONCAT}, "
                "since features of different encoders have no common mean"
            )
        each = one_recipe_each(find, columns, encoder)
        return [Source(recipe, (name,), _place(recipe, layer)) for name, recipe in each.items()]
    recipe = encoder if isinstance(encoder, FeatureRecipe) else find(encoder)
    if recipe.channels and fusion == CONCAT:
        raise InputError(
            f"fusion={CONCAT}, and {recipe.name} has one vector for all volumes of a visit; "
            f"allowed: fusion={MEAN}, or features of volumes (features extract --unit volume)"
        )
    return [Source(recipe, tuple(columns), _place(recipe, layer))]


def one_recipe_each(
    find: Find, columns: Sequence[str], encoders: Mapping[str, str] | Mapping[str, FeatureRecipe]
) -> dict[str, FeatureRecipe]:
    """Return the recipe of each column.

    Args:
        find: returns the recipe of a name.
        columns: of volumes.
        encoders: a recipe or its name for each column.

    Raises:
        InputError: a column without an encoder, an encoder of no such column, or a name that
            `find` refuses.
    """
    if set(encoders) != set(columns):
        raise InputError(
            f"encoders for {', '.join(encoders)}, and the modalities are {', '.join(columns)}; "
            "allowed: one encoder for each of them"
        )
    recipes = {}
    for name in columns:
        given = encoders[name]
        recipes[name] = given if isinstance(given, FeatureRecipe) else find(given)
    return recipes


def missing_message(folder: Path, table: Table, missing: Sequence[tuple[Source, str]]) -> str:
    """Message for volumes that are not in the cache.

    Args:
        folder: of the cache.
        table: of the volumes.
        missing: names of the volumes, and whose features are missing.
    """
    source = missing[0][0]
    command = f"nnunet-fm features extract {table.file} --encoder {source.recipe.name}"
    command += f" --cache {folder}"
    if source.recipe.channels:
        command += " --unit visit"
    if set(source.columns) < set(table.modalities):
        command += f" --modalities {','.join(source.columns)}"
    if source.recipe.perturbation:
        change = source.recipe.perturbation
        command += f" --perturb {change['family']}={change['severity']}"
    return (
        f"{counted(len(missing), 'volume')} of {table.file} missing from the cache: "
        f"{some([text for _, text in missing])}; type: {command}"
    )


def _place(recipe: FeatureRecipe, layer: int | None) -> int:
    """Return the place of a block in the arrays of a recipe; of the last one if None."""
    if layer is None:
        return len(recipe.layers) - 1
    if layer not in recipe.layers:
        blocks = ", ".join(map(str, recipe.layers))
        raise InputError(f"layer {layer} is not in the cache; allowed: {blocks}")
    return recipe.layers.index(layer)
