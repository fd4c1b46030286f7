"""Strict YAML settings: unknown keys are refused, values checked, single keys overridden."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from nnunet_fm.internal import option_types
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.json_files import read_utf8
from nnunet_fm.internal.messages import unknown
from nnunet_fm.internal.yaml_text import parse_yaml

# kinds of fields; the same rules as the types of options
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]
Seed = Annotated[int, Field(ge=0, le=option_types.LARGEST_SEED)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Text = Annotated[str, AfterValidator(option_types.text)]
Name = Annotated[str, AfterValidator(option_types.name)]  # of a file or folder


class Part(BaseModel):
    """A part of the settings: frozen, without unknown keys or wrong types."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_two_spellings(cls, values: Any) -> Any:
        """Refuse a key next to its former name, e.g. one in the file and one on the command line.

        The former names of a key are the other choices of its `AliasChoices`.
        """
        if not isinstance(values, dict):
            return values
        for field in cls.model_fields.values():
            if not isinstance(field.validation_alias, AliasChoices):
                continue
            given = [str(name) for name in field.validation_alias.choices if name in values]
            if len(given) > 1:
                raise InputError(
                    f"{' and '.join(given)} are two names of one key; give one of them (the one "
                    "that the file has, to override it)"
                )
        return values


Model = TypeVar("Model", bound=Part)


def shipped_settings(folder: Path) -> dict[str, Path]:
    """Return the YAML files of a folder and its subfolders by name."""
    return {p.stem: p for p in sorted(folder.rglob("*.yaml"))}


def read_settings(
    model: type[Model], given: str | Path, folder: Path, overrides: Sequence[str]
) -> Model:
    """Read settings and change single keys.

    Args:
        model: class of the settings; its name in lower case appears in messages.
        given: name of a shipped file, or path of a YAML file.
        folder: of the shipped files.
        overrides: `part.key=value`, values as in YAML.

    Raises:
        FileNotFoundError, ValueError: unknown name or key (close matches are named), or a value
        that is not allowed.
    """
    what = model.__name__.lower()
    content, name = read_content(what, given, folder, overrides)
    return parse_settings(model, content, name, what)


def read_content(
    what: str, given: str | Path, folder: Path, overrides: Sequence[str]
) -> tuple[dict[str, Any], str]:
    """Read settings as plain data, for callers that choose the class by the content.

    Args:
        what: what the settings are called in messages.
        given: see `read_settings`.
        folder: see `read_settings`.
        overrides: see `read_settings`.

    Returns:
        The data with the overrides, and the name of the file.

    Raises:
        FileNotFoundError, ValueError: unknown name, or a file that is not a YAML mapping.
    """
    shipped = shipped_settings(folder)
    path = shipped.get(str(given), Path(given))
    if not path.is_file():
        raise MissingFileError(
            unknown(what, str(given), shipped, "Or give the path of a YAML file.")
        )
    content = parse_yaml(read_utf8(path), str(path))
    if not isinstance(content, dict):
        raise InputError(
            f"{path} holds a {type(content).__name__}; allowed: a {what}, see {folder}"
        )
    for override in overrides:
        _override(content, override)
    return content, path.name


def parse_settings(
    model: type[Model], content: dict[str, Any], name: str, what: str | None = None
) -> Model:
    """Check plain data and return it as settings.

    Args:
        model: class of the settings.
        content: plain data.
        name: where the data came from, for messages.
        what: what the settings are called in messages; the name of the class if None.

    Raises:
        ValueError: everything that is wrong, one problem per line.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        title = f"{name} is not valid:"
        raise InputError(
            "\n  ".join([title, *_problems(model, error, what or model.__name__.lower())])
        ) from None


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise InputError(f"{override!r} is not KEY=VALUE, e.g. optimiser.steps=1000")
    *parents, last = key.split(".")
    for parent in parents:
        content = content.setdefault(_known(content, parent), {})
        if not isinstance(content, dict):
            raise InputError(f"{key!r}: {parent} holds no keys")
    content[_known(content, last)] = parse_yaml(value, f"{override!r}: the value")


def _known(content: dict[Any, Any], typed: str) -> Any:
    """Return the existing key that is spelled like this, even a number; else the word itself."""
    return next((key for key in content if str(key) == typed), typed)


def _problems(model: type[Part], error: ValidationError, what: str) -> list[str]:
    """Say what is wrong, one problem per line."""
    lines = []
    for problem in error.errors():
        where = ".".join(str(p) for p in problem["loc"])
        if problem["type"] == "extra_forbidden":
            allowed = [
                ".".join([*map(str, problem["loc"][:-1]), key])
                for key in _keys(model, problem["loc"][:-1])
            ]
            lines.append(unknown("key", where, allowed))
        elif problem["type"] == "literal_error" and isinstance(problem["input"], str):
            allowed = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
            lines.append(unknown(where, problem["input"], allowed))
        elif problem["type"] == "literal_error":
            given = str(problem["input"])[:400]
            lines.append(f"{where} {given}; allowed: {problem['ctx']['expected']}")
        elif problem["type"] == "too_short":
            lines.append(f"{where} is empty; allowed: at least one value")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{where or what}: {message}, given: {problem['input']!r}"[:400])
    return lines


def _keys(model: type[Part], location: tuple[int | str, ...]) -> list[str]:
    """Return the keys that are allowed at a place in the settings."""
    part: Any = model
    for step in location:
        if inner := get_args(part):  # of a tuple or a dict
            part = inner[1] if get_origin(part) is dict else inner[0]
        else:
            part = part.model_fields[step].annotation
    return sorted(getattr(part, "model_fields", {}))
