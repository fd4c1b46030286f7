"""Stopping a run so that it can be resumed."""

import signal
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(Exception):
    """A run was stopped by a signal; the same command resumes it.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; the same command resumes")
        self.number = number


class GracefulShutdown:
    """Context in which SIGTERM and Ctrl-C set `requested` instead of ending the process.

    A second Ctrl-C raises KeyboardInterrupt.

    Attributes:
        requested: number of the signal that has arrived; 0 before.
    """

    def __init__(self) -> None:
        self.requested = 0
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "GracefulShutdown":
        self._former = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = number
