"""Errors that a user can fix. Any other exception is a bug and keeps its traceback."""


class UserError(Exception):
    """Base class. The message says what was given, what is allowed and what to type next.

    The command line prints the message alone and exits with code 2; `--debug` adds the traceback.
    Each subclass is also the built-in error that fits, so that `except ValueError` works in Python.
    """


class InputError(UserError, ValueError):
    """A value, file or table that is not what it has to be."""


class MissingFileError(UserError, FileNotFoundError):
    """A file, folder or command that does not exist."""


class ExistingFileError(UserError, FileExistsError):
    """An output that exists already and is not overwritten."""


class StorageError(UserError, OSError):
    """A disk or file system that refuses, e.g. for lack of space."""


class BusyError(UserError, RuntimeError):
    """A folder that another process writes to."""


class FailedRunError(UserError, RuntimeError):
    """A program or training that failed; the message holds the end of its log."""


class NonFiniteError(UserError, FloatingPointError):
    """NaN or infinite numbers where finite ones are needed."""


class OutOfMemoryError(UserError, MemoryError):
    """A step that does not fit into memory; the message names what would fit."""


def is_torch_out_of_memory(error: Exception) -> bool:
    """Return whether torch ran out of the memory of a GPU or of the CPU; torch is not imported."""
    if type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)
