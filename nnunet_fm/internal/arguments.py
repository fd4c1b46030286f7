"""Command-line flags: those that several commands share, and flags derived from a pydantic model.

A model that becomes flags says everything once, in its fields:

    class Options(Part):
        base: Annotated[str, Flag("-c", metavar="CONFIGURATION")] = Field("2d", description="...")
        fov: Literal["native", "fit"] | None = Field(None, description="field of view")

    add_model_arguments(parser, Options)                      # -c CONFIGURATION, --fov {native,fit}
    options = model_from_arguments(Options, parser.parse_args())
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import AfterValidator
from pydantic.fields import FieldInfo

from nnunet_fm.internal import option_types
from nnunet_fm.internal.config import Model, Part, parse_settings
from nnunet_fm.internal.errors import InputError


class Flag:
    """How a model's field is written on the command line, where `--its-name` is not enough.

    Args:
        *names: all spellings, the first one for the help; `--field-name` if empty.
        metavar: what stands for the value in the help.
        required: whether the command line must have it, whatever the model's default.
        parse: reads the word; by the field's type and constraints if None, see `option_types`.
    """

    def __init__(
        self,
        *names: str,
        metavar: str | None = None,
        required: bool = False,
        parse: Callable[[str], Any] | None = None,
    ) -> None:
        self.names = names
        self.metavar = metavar
        self.required = required
        self.parse = parse


def add_model_arguments(parser: argparse.ArgumentParser, model: type[Part]) -> None:
    """Add one flag for each field of a model: name, type, choices, default and help.

    A `Literal` becomes choices, a tuple takes several words, a `bool` takes none, a `dict` takes
    `KEY=VALUE` and may be repeated.
    """
    for name, field in model.model_fields.items():
        parser.add_argument(*flag_names(model, name), dest=name, **_argument(field, _flag(field)))


def model_from_arguments(model: type[Model], parsed: argparse.Namespace) -> Model:
    """Build a model from parsed flags that `add_model_arguments` added.

    Raises:
        ValueError: everything that is wrong, a line each.
    """
    values = {name: getattr(parsed, name) for name in model.model_fields}
    for name, field in model.model_fields.items():
        if _value_type(field.annotation) is dict:
            values[name] = parse_key_values(values[name])
    return parse_settings(model, values, "the command line")


def flag_names(model: type[Part], name: str) -> tuple[str, ...]:
    """Return all spellings of the flag of a model's field, the one for messages first."""
    return _flag(model.model_fields[name]).names or (f"--{name.replace('_', '-')}",)


def _flag(field: FieldInfo) -> Flag:
    return next((item for item in field.metadata if isinstance(item, Flag)), Flag())


def _argument(field: FieldInfo, flag: Flag) -> dict[str, Any]:
    """Keywords of `add_argument`."""
    if _value_type(field.annotation) is bool:
        return {"action": "store_true", "help": field.description}
    argument: dict[str, Any] = {"help": field.description, "required": flag.required}
    if flag.metavar:
        argument["metavar"] = flag.metavar
    if _value_type(field.annotation) is dict:
        return argument | {"action": "append", "default": [], "type": option_types.key_value}
    argument["default"] = field.get_default(call_default_factory=True)
    choices = _choices(field.annotation)
    if choices:
        argument["choices"] = choices
    annotation, constraints = field.annotation, field.metadata
    if _value_type(annotation) is tuple and flag.parse is None:
        argument["nargs"] = "+"
        annotation, constraints = get_args(_without_none(annotation))[0], []
    argument["type"] = flag.parse or _option_type(annotation, constraints)
    return argument


def _option_type(annotation: Any, constraints: Sequence[Any]) -> Callable[[str], Any]:
    """Return what reads one word for a field: a number in its range, a name, or any word."""
    constraints = [*constraints, *_constraints(annotation)]
    kind = _value_type(annotation)
    if kind in (int, float):
        limits = {
            limit: getattr(constraint, limit)
            for constraint in constraints
            for limit in ("gt", "ge", "le")
            if hasattr(constraint, limit)
        }
        low = limits.get("ge", limits.get("gt"))
        return option_types.Number(kind, low, limits.get("le"), above="gt" in limits)
    checks = [c.func for c in constraints if isinstance(c, AfterValidator)]
    return cast(Callable[[str], Any], checks[0]) if checks else option_types.text


def _constraints(annotation: Any) -> list[Any]:
    """List the metadata of `Annotated[X, ...]`, alone or in `Annotated[X, ...] | None`."""
    if get_origin(annotation) in (Union, UnionType):
        return [c for part in get_args(annotation) for c in _constraints(part)]
    if get_origin(annotation) is not Annotated:
        return []
    found: list[Any] = []
    for item in get_args(annotation)[1:]:
        found += item.metadata if isinstance(item, FieldInfo) else [item]
    return found


def _without_none(annotation: Any) -> Any:
    """`X` of `X | None` and of `Annotated[X, ...]`."""
    if get_origin(annotation) is Annotated:
        return _without_none(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return _without_none(next(a for a in get_args(annotation) if a is not NoneType))
    return annotation


def _choices(annotation: Any) -> tuple[Any, ...]:
    plain = _without_none(annotation)
    return get_args(plain) if get_origin(plain) is Literal else ()


def _value_type(annotation: Any) -> type:
    """`str` of `str | None`, `tuple` of `tuple[int, ...]`, and the values' type of a `Literal`."""
    plain = _without_none(annotation)
    if get_origin(plain) is Literal:
        return type(get_args(plain)[0])
    value_type: type = get_origin(plain) or plain
    return value_type


def parse_key_values(pairs: Sequence[str]) -> dict[str, Any]:
    """Read `KEY=VALUE` pairs: numbers, `true` and `false` become such, anything else is text.

    >>> parse_key_values(["qkv_bias=true", "norm_eps=1e-6", "rope=bfloat16"])
    {'qkv_bias': True, 'norm_eps': 1e-06, 'rope': 'bfloat16'}

    Raises:
        ValueError: a pair without `=`.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise InputError(
                f"option {pair!r}; allowed: KEY=VALUE, e.g. qkv_bias=true or norm_eps=1e-6"
            )
        values[key] = _plain_value(pair, text)
    return values


def _plain_value(pair: str, text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"option {pair!r}; allowed: a finite number")
    return value


def check_part(part: tuple[int, int]) -> None:
    """Check a part of the work, given as (number from 0, number of parts).

    Raises:
        ValueError: an impossible part; the message names the parts there are.
    """
    number, parts = part
    if not 0 <= number < parts:
        raise InputError(f"part {number} of {parts}; allowed: --part-id from 0 to {parts - 1}")
