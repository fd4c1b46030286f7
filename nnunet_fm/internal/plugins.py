"""Modules that installed packages add through entry points, and classes by dotted path."""

import logging
from importlib.metadata import entry_points
from pydoc import ErrorDuringImport, locate

from nnunet_fm.internal.errors import InputError

logger = logging.getLogger(__name__)


def load_plugins(group: str) -> dict[str, object]:
    """Load everything that installed packages name under an entry point group.

    A plug-in that cannot be imported is skipped with a warning.

    Args:
        group: e.g. `nnunet_fm.encoders`.

    Returns:
        The loaded objects by the name of their entry point.
    """
    loaded: dict[str, object] = {}
    for entry_point in entry_points(group=group):
        try:
            loaded[entry_point.name] = entry_point.load()
        except Exception as error:  # a broken plug-in must not stop the others
            logger.warning("skipped the plug-in %s (%s): %s", entry_point.value, group, error)
    return loaded


def find_class(path: str) -> type | None:
    """Return the class that a dotted path names; None if there is none.

    Raises:
        InputError: its module cannot be imported.
    """
    if "." not in path or "/" in path:
        return None
    try:
        found = locate(path)
    except ErrorDuringImport as error:
        reason = f"{type(error.value).__name__}: {error.value}"
        raise InputError(f"{path} cannot be imported ({reason}); correct its module") from None
    return found if isinstance(found, type) else None
