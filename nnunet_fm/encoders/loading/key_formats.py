"""Recognise the key format of a state dict among those that the families registered."""

from collections.abc import Mapping

from torch import Tensor

from nnunet_fm.encoders.key_format import KeyFormat
from nnunet_fm.encoders.registry import KEY_FORMATS


def detect_format(state: Mapping[str, Tensor]) -> KeyFormat | None:
    """Return the format that the keys are in, or None; generic formats are tried last."""
    ordered = sorted(KEY_FORMATS.values(), key=lambda key_format: key_format.generic)
    return next((f for f in ordered if f.matches(state)), None)


def family_prefixes() -> tuple[str, ...]:
    """Return the prefixes that the registered formats declare."""
    return tuple(prefix for f in KEY_FORMATS.values() for prefix in f.prefixes)
