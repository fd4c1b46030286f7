"""The methods that are installed: a folder here, or an entry point of another package.

A folder declares an object `METHOD`; an installed package declares one as an entry point of the
group `nnunet_fm_pretrain.methods` under the method's name. No list has to be edited.
"""

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown
from nnunet_fm_pretrain.engine.method import Method

GROUP = "nnunet_fm_pretrain.methods"
DEFAULT = "braindino"  # recipes that name no method are of version 0.1, which had this one only


def method_names() -> list[str]:
    """List the names of all methods, without importing any."""
    return sorted({*_shipped(), *(point.name for point in entry_points(group=GROUP))})


def get_method(name: str) -> Method:
    """Return a method by the name that recipes use.

    Raises:
        ValueError: unknown name (close matches are named), or an entry point that is not a method.
    """
    if name in _shipped():
        method = import_module(f"{__package__}.{name}").METHOD
    else:
        points = entry_points(group=GROUP, name=name)
        if not points:
            raise InputError(unknown("pretraining method", name, method_names()))
        method = next(iter(points)).load()
    if not isinstance(method, Method) or method.name != name:
        raise InputError(
            f"the entry point {name!r} of {GROUP} gives {method!r}; "
            f"allowed: an object of a subclass of Method whose name is {name!r}"
        )
    return method


def method_of(content: Mapping[str, Any]) -> Method:
    """Return the method that a recipe's plain data names.

    Raises:
        ValueError: as `get_method`.
    """
    return get_method(method_name(content) or DEFAULT)


def method_name(content: Mapping[str, Any]) -> str | None:
    """Return the name of the method in a recipe's plain data; None if there is none."""
    objective = content.get("objective")
    name = objective.get("method") if isinstance(objective, Mapping) else None
    return None if name is None else str(name)


def _shipped() -> list[str]:
    folder = str(Path(__file__).parent)
    return [module.name for module in pkgutil.iter_modules([folder]) if module.ispkg]
