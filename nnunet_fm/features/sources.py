"""Whose features the volumes of a table have: one encoder's, or one encoder's for each modality."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_fm.data.subject_table import Row, Table
from nnunet_fm.features.recipe import FeatureRecipe
from nnunet_fm.features.visits import check_columns
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

    Raises:
        InputError: columns that the encoder of whole visits does not take, see `check_columns`.
    """

    recipe: FeatureRecipe
    columns: tuple[str, ...]
    layer: int = 0

    def __post_init__(self) -> None:
        """Check the columns."""
        if self.recipe.channels:
            check_columns(self.recipe.channels, self.columns)

    def inputs(self, row: Row) -> list[tuple[str, ...]]:
        """Return the columns of each input that the volumes of a visit make."""
        return self.recipe.inputs_of([name for name in self.columns if name in row.volumes])


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
        each = _one_recipe_each(find, columns, encoder)
        if fusion == MEAN:
            raise InputError(
                f"an encoder for each modality with fusion={MEAN}; allowed: fusion={CONCAT}, "
                "since features of different encoders have no common mean"
            )
        return [_source(recipe, (name,), layer) for name, recipe in each.items()]
    recipe = encoder if isinstance(encoder, FeatureRecipe) else find(encoder)
    if recipe.channels and fusion == CONCAT:
        raise InputError(
            f"fusion={CONCAT}, and {recipe.name} has one vector for all volumes of a visit; "
            f"allowed: fusion={MEAN}, or features of single volumes (features extract without "
            "--together)"
        )
    return [_source(recipe, tuple(columns), layer)]


def _one_recipe_each(
    find: Find, columns: Sequence[str], encoders: Mapping[str, str] | Mapping[str, FeatureRecipe]
) -> dict[str, FeatureRecipe]:
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


def _source(recipe: FeatureRecipe, columns: tuple[str, ...], layer: int | None) -> Source:
    if layer is None:
        return Source(recipe, columns, len(recipe.layers) - 1)
    if layer not in recipe.layers:
        blocks = ", ".join(map(str, recipe.layers))
        raise InputError(f"the cache has no layer {layer} of {recipe.name}; allowed: {blocks}")
    return Source(recipe, columns, recipe.layers.index(layer))


def check_complete(table: Table, sources: Sequence[Source]) -> None:
    """Check that every visit has the sequences that its encoder cannot do without.

    Raises:
        InputError: naming the visits that do not.
    """
    lacking = []
    for row in table.rows:
        for source in sources:
            for together in source.inputs(row):
                names = source.recipe.lacking(together)
                lacking += [f"{row.name} ({', '.join(names)})"] if names else []
    if lacking:
        raise InputError(
            f"{counted(len(lacking), 'visit')} of {table.file} without a sequence that the encoder "
            f"needs: {some(lacking)}; remove the rows, or, in a task of heads, set complete=true"
        )


def missing_message(folder: Path, table: Table, missing: Sequence[tuple[Source, str]]) -> str:
    """Message for volumes that are not in the cache.

    Args:
        folder: of the cache.
        table: of the volumes.
        missing: names of the volumes, and whose features are missing.
    """
    sources = list({id(source): source for source, _ in missing}.values())
    commands = [extract_command(folder, table, s.recipe, s.columns) for s in sources]
    return (
        f"{counted(len(missing), 'volume')} of {table.file} missing from the cache: "
        f"{some([text for _, text in missing])}; type: {' && '.join(commands)}"
    )


def extract_command(
    folder: Path,
    table: Table,
    recipe: FeatureRecipe,
    columns: Sequence[str] | None = None,
    perturb: str = "",
) -> str:
    """Return the command that extracts features again, or under a perturbation.

    Args:
        folder: of the cache.
        table: of the volumes.
        recipe: of the features.
        columns: of the volumes; None for all of the table's.
        perturb: `FAMILY=SEVERITY`; that of the recipe if empty.
    """
    command = f"nnunet-fm features extract {table.file} --encoder {recipe.name} --cache {folder}"
    if recipe.channels:
        command += " --together"
    if columns is not None and set(columns) < set(table.modalities):
        command += f" --modalities {','.join(columns)}"
    if recipe.perturbation and not perturb:
        perturb = f"{recipe.perturbation['family']}={recipe.perturbation['severity']}"
    return f"{command} --perturb {perturb}" if perturb else command
