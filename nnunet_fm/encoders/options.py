"""The options that the constructor of an encoder takes."""

from collections.abc import Callable, Iterable
from functools import partial
from inspect import Parameter, signature
from typing import Any

from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown

GIVEN_APART = {
    "taps": "--taps to plan, --layers to extract features",
    "card": "--card",
    "path": "--encoder",
}


def check_given_options(options: Iterable[str]) -> None:
    """Refuse options that have a flag of their own.

    Raises:
        InputError: one of them was given.
    """
    for name in options:
        if name in GIVEN_APART:
            raise InputError(f"{name} is not an encoder option; type {GIVEN_APART[name]}")


def check_option_names(
    architecture: str, build: Callable[..., Any], options: Iterable[str]
) -> None:
    """Check that a builder knows the names of options.

    Args:
        architecture: for the message.
        build: class or function, or a `partial` of one.
        options: names.

    Raises:
        InputError: an unknown name; the allowed ones are named, close ones first.
    """
    own, passed_on = _option_names(build)
    if own is None:
        return
    taken = [*sorted(own), *(["the options of timm's constructor"] if passed_on else [])]
    hint = f"{architecture} takes {', '.join(taken) or 'no options'}"
    for name in options:
        if name not in own | passed_on:
            raise InputError(f"{unknown('encoder option', name, own | passed_on)} {hint}")


def _option_names(build: Callable[..., Any]) -> tuple[set[str] | None, set[str]]:
    """Return the options that a builder takes.

    A constructor's `**arguments` stand for the options of its base class, and for those of the
    classes in an attribute `passed_on` of its class, or that a function of this name returns for
    the arguments that the builder has bound.

    Returns:
        Its own options, or None if it takes any; and those of `passed_on`.
    """
    excluded = {"self", "taps"}  # taps are an argument of their own
    bound: tuple[Any, ...] = ()
    while isinstance(build, partial):
        excluded |= set(signature(build.func).bind_partial(*build.args).arguments)
        bound = (*build.args, *bound)
        build = build.func
    if not isinstance(build, type):
        names, takes_any = _parameters(build)
        return (None if takes_any else names - excluded), set()
    found: set[str] = set()
    for base in build.__mro__:
        if "__init__" not in base.__dict__:
            continue
        names, takes_any = _parameters(base.__dict__["__init__"])
        found |= names
        others = base.__dict__.get("passed_on", ())
        others = others(*bound) if callable(others) else others
        if others or not takes_any:
            passed_on = set[str]().union(*(_parameters(other)[0] for other in others))
            return found - excluded, passed_on
    return None, set()


def _parameters(function: Callable[..., Any]) -> tuple[set[str], bool]:
    """Return the names of a function's parameters, and whether it takes any others by name."""
    parameters = signature(function).parameters.values()
    by_name = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    names = {p.name for p in parameters if p.kind in by_name}
    return names, any(p.kind is Parameter.VAR_KEYWORD for p in parameters)
