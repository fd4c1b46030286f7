"""Refuse a file that needs more memory than there is, before it is read."""

import psutil

from nnunet_fm.internal.errors import InputError

GIB = 1 << 30


class TooLargeError(InputError):
    """A file that needs more memory than this machine has free."""


def check_memory(needed: int, what: str) -> None:
    """Check that something fits into the memory that is free.

    Args:
        needed: bytes.
        what: names the file, for the error's message.

    Raises:
        TooLargeError: it does not fit.
    """
    free = int(psutil.virtual_memory().available)
    if needed > free:
        raise TooLargeError(
            f"{what} needs {needed / GIB:,.3g} GiB of memory, and {free / GIB:.3g} GiB are free; "
            "if its header is right, use a machine with more memory"
        )
