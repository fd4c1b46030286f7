"""Modules that installed packages add through entry points."""

import logging
from importlib.metadata import entry_points

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
