"""The error of readers of volumes."""

from nnunet_fm.internal.errors import InputError


class BadVolumeError(InputError):
    """A volume that cannot be used; the message gives the reason in one line."""
