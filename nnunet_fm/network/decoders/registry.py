"""The registry of decoders, filled by this package and by installed ones.

A package adds decoders in a module that it names under the entry point group `nnunet_fm.decoders`.
"""

from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.plugins import load_plugins
from nnunet_fm.network.decoders.base import Decoder

ENTRY_POINTS = "nnunet_fm.decoders"
DECODERS: dict[str, type[Decoder]] = {}


def register_decoder(name: str, decoder: type[Decoder]) -> None:
    """Add a decoder under the name that `nnunet-fm plan --decoder` takes.

    Raises:
        InputError: the name is taken.
    """
    if name in DECODERS:
        raise InputError(f"decoder {name!r} is already registered")
    DECODERS[name] = decoder


def discover() -> None:
    """Import the decoders of installed packages."""
    load_plugins(ENTRY_POINTS)
