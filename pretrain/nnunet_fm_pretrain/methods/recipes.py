"""Reading recipes: shipped ones by name, files, and single keys from the command line."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_fm.internal.config import parse_settings, read_content, shipped_settings
from nnunet_fm.internal.folders import folder
from nnunet_fm_pretrain.engine.recipe import Recipe
from nnunet_fm_pretrain.methods.registry import DEFAULT, method_name, method_names, method_of

logger = logging.getLogger(__name__)

RECIPES = folder("recipes", Path(__file__).parents[1])


def shipped_recipes() -> dict[str, Path]:
    """Return the name and the file of each shipped recipe."""
    return shipped_settings(RECIPES)


def read_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe as its method's recipe class, and change single keys of it.

    A recipe that names no method is one of version 0.1, which had one method; this is said.

    Args:
        name: of a shipped recipe, or path of a YAML file.
        overrides: `part.key=value`, values as in YAML.

    Raises:
        FileNotFoundError, ValueError: unknown recipe, method or key (close matches are named), or a
            value that is not allowed.
    """
    content, file = read_content("recipe", name, RECIPES, overrides)
    if method_name(content) is None:
        logger.warning(
            "%s names no method and is read as a recipe of %s, as in version 0.1; "
            "name one: objective.method=%s (installed: %s)",
            file,
            DEFAULT,
            DEFAULT,
            ", ".join(method_names()),
        )
    return parse_recipe(content, file)


def parse_recipe(content: dict[str, Any], name: str) -> Recipe:
    """Check plain data and return it as the recipe class of its method.

    Args:
        content: of a recipe.
        name: where it came from, for messages.

    Raises:
        ValueError: everything that is wrong, one problem per line.
    """
    return parse_settings(method_of(content).recipe, content, name, "recipe")
