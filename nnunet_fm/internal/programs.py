"""Programs that a command starts: they end with it, even if it is killed."""

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

# Linux alone can do it, and only for a process itself: so Python asks for it, then becomes the
# program. 1 is PR_SET_PDEATHSIG. Our process may have ended before; Python ignores SIGPIPE.
ENDING_WITH_US = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{sys.argv[2]}: {error.strerror}")
"""


def ending_with_us(argv: Sequence[str]) -> list[str]:
    """Return the command line of a program that gets SIGTERM when this process ends.

    Args:
        argv: program, which is on the PATH, and its arguments.
    """
    return [sys.executable, "-ISc", ENDING_WITH_US, str(os.getpid()), *argv]


def run_program(argv: Sequence[str], **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end; bytes of its output that are not UTF-8 are replaced.

    Args:
        argv: see `ending_with_us`.
        options: as of `subprocess.run`, e.g. `cwd`, `env` or `capture_output`.
    """
    return subprocess.run(ending_with_us(argv), encoding="utf-8", errors="replace", **options)
