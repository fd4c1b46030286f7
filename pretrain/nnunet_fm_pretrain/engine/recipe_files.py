"""Reading recipes: shipped ones by name, files, single keys from the command line; and comparing them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nnunet_fm.internal.config import parse_settings, read_settings, shipped_settings
from nnunet_fm.internal.folders import folder
from nnunet_fm_pretrain.engine.recipe import Recipe

RECIPES = folder("recipes", Path(__file__).parents[1])


def shipped_recipes() -> dict[str, Path]:
    """Name and file of each shipped recipe."""
    return shipped_settings(RECIPES)


def read_recipe(given: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and change single keys of it, see `read_settings`.

    Raises:
        FileNotFoundError, ValueError: unknown recipe or key (close matches are named), or a value
        that is not allowed.
    """
    return read_settings(Recipe, given, RECIPES, overrides)


def parse_recipe(content: dict[str, Any], name: str) -> Recipe:
    """A recipe from plain data, see `parse_settings`.

    Raises:
        ValueError: everything that is wrong, a line each.
    """
    return parse_settings(Recipe, content, name)


def differences(one: Recipe, other: Recipe) -> list[str]:
    """Keys that two recipes differ in, with both values; the part `run` is left out, as it changes no result."""
    first, second = (dict(_flat(r.model_dump(exclude={"run"}, mode="json"))) for r in (one, other))
    return [
        f"{k}: {first.get(k)} and {second.get(k)}"
        for k in sorted(first | second)
        if first.get(k) != second.get(k)
    ]


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, content
