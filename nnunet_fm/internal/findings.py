"""Results of the checks of `doctor`, and how they are printed."""

from collections.abc import Iterable
from dataclasses import dataclass

MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        level: `ok`, `warn` or `fail`.
        what: what was found.
        fix: the command or change that repairs it; may be empty.
    """

    level: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        line = f"{MARKS[self.level]}  {self.what}"
        return f"{line}\n      fix: {self.fix}" if self.fix else line


def print_findings(findings: Iterable[Finding]) -> int:
    """Print findings as they come; return 1 if any is a failure, else 0."""
    failed = False
    for finding in findings:
        print(finding, flush=True)
        failed |= finding.level == "fail"
    return int(failed)
