"""The terminal: closed streams, a reader that is gone, and Ctrl-C while torch is imported."""

import os
import select
import signal
import sys

from nnunet_fm.internal.errors import MissingFileError

INTERRUPTED = 130  # exit code of a shell: 128 and the signal
STDOUT, STDERR = 1, 2  # numbers of the streams


def set_up() -> None:
    """Prepare the streams and Ctrl-C of a process of its own."""
    _connect_closed_streams()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _connect_closed_streams() -> None:
    """Connect standard streams that are closed (`2>&-`) to nowhere.

    Else the next files that are opened take their numbers, and what libraries print goes into them.
    """
    number = os.open(os.devnull, os.O_RDWR)
    while number <= STDERR:
        os.set_inheritable(number, True)
        number = os.open(os.devnull, os.O_RDWR)
    os.close(number)
    if sys.stdout is None:
        sys.stdout = open(STDOUT, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(STDERR, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _interrupt(*_: object) -> None:
    """Raise KeyboardInterrupt; end at once where torch is being imported, which would abort."""
    torch = sys.modules.get("torch")
    if getattr(getattr(torch, "__spec__", None), "_initializing", False):
        os.write(STDERR, b"nnunet-fm: stopped\n")
        os._exit(INTERRUPTED)
    raise KeyboardInterrupt


def check_folder() -> None:
    """Check that the working folder exists; without one, libraries fail for no clear reason.

    Raises:
        FileNotFoundError: it was deleted.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise MissingFileError(
            "the folder in which you typed the command was deleted; type cd and another folder"
        ) from None


def reader_is_gone() -> bool:
    """Whether the reader of the output is gone, as in `nnunet-fm ... | head`.

    If so, the rest of the output goes nowhere.
    """
    try:
        sys.stdout.flush()
        gone = _is_broken(sys.stdout.fileno())
    except BrokenPipeError:
        gone = True
    if gone:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    return gone


def _is_broken(stream: int) -> bool:
    """Whether a stream is a pipe that nobody reads; one without a buffer holds nothing to flush."""
    waiting = select.poll()
    waiting.register(stream, select.POLLOUT)
    return any(event & select.POLLERR for _, event in waiting.poll(0))
