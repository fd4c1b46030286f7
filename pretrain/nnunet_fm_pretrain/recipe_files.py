"""Reading recipes: shipped ones by name, files, single keys from the command line; and comparing them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from nnunet_fm.folders import folder
from nnunet_fm.messages import unknown
from nnunet_fm_pretrain.recipe import Recipe

RECIPES = folder("recipes", Path(__file__).parent)


def shipped_recipes() -> dict[str, Path]:
    """Name and file of each shipped recipe."""
    return {p.stem: p for p in sorted(RECIPES.glob("*.yaml"))}


def read_recipe(given: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and change single keys of it.

    Args:
        given: name of a shipped recipe or path of a YAML file.
        overrides: `part.key=value`, values as in YAML.

    Raises:
        FileNotFoundError, ValueError: unknown recipe or key (close matches are named), or a value that is not allowed.
    """
    path = shipped_recipes().get(str(given), Path(given))
    if not path.is_file():
        hint = "Or give the path of a YAML file."
        raise FileNotFoundError(unknown("recipe", str(given), shipped_recipes(), hint))
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; allowed: a recipe, see {RECIPES}")
    for override in overrides:
        _override(content, override)
    return parse_recipe(content, path.name)


def parse_recipe(content: dict[str, Any], name: str) -> Recipe:
    """A recipe from plain data; `name` is where it came from, for the message.

    Raises:
        ValueError: everything that is wrong, a line each.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise ValueError("\n  ".join([f"{name} is no valid recipe:", *_problems(error)])) from None


def differences(one: Recipe, other: Recipe) -> list[str]:
    """Keys that two recipes differ in, with both values; the part `run` is left out, as it changes no result."""
    first, second = (dict(_flat(r.model_dump(exclude={"run"}, mode="json"))) for r in (one, other))
    return [f"{k}: {first.get(k)} and {second.get(k)}" for k in sorted(first | second) if first.get(k) != second.get(k)]


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, content


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise ValueError(f"{override!r} is no KEY=VALUE, e.g. optimiser.steps=1000")
    *parents, last = key.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise ValueError(f"{key!r}: {parent} holds no keys")
    content[last] = yaml.safe_load(value)


def _problems(error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors():
        where = ".".join(str(p) for p in problem["loc"])
        if problem["type"] == "extra_forbidden":
            allowed = [".".join([*map(str, problem["loc"][:-1]), key]) for key in _keys(problem["loc"][:-1])]
            lines.append(unknown("key", where, allowed))
        else:
            said = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{where or 'recipe'}: {said}, given: {problem['input']!r}"[:400])
    return lines


def _keys(location: tuple[int | str, ...]) -> list[str]:
    """Keys allowed at a place in a recipe."""
    part: Any = Recipe
    for step in location:
        part = get_args(part)[0] if isinstance(step, int) else part.model_fields[step].annotation
    return sorted(getattr(part, "model_fields", {}))
