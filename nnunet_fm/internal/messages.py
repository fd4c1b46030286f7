"""The wording of errors: what was given, what is allowed, what to type next."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

MOST_NAMES = 20


def unknown(what: str, given: str, allowed: Iterable[str], hint: str = "") -> str:
    """Message for an unknown name, with the close matches first."""
    names = sorted(allowed)
    close = get_close_matches(given, names, n=3, cutoff=0.5)
    suggestion = f" Did you mean {' or '.join(close)}?" if close else ""
    allowed_text = f" Allowed: {', '.join(names)}." if len(names) <= MOST_NAMES else ""
    return f"unknown {what} {given!r}.{suggestion}{allowed_text}" + (f" {hint}" if hint else "")


def some(items: Sequence[str], most: int = 4) -> str:
    """List the first few of `items`, and how many more there are."""
    shown = ", ".join(str(i) for i in items[:most])
    return shown + (f", and {len(items) - most} more" if len(items) > most else "")


def reason_of(error: Exception) -> str:
    """Return the text of an error; a memory error often has none."""
    text = str(error).strip()
    if not text and isinstance(error, MemoryError):
        return "more than the memory holds"
    return text or type(error).__name__


def counted(count: int, noun: str) -> str:
    """Return a number with its noun in singular or plural, e.g. `1 subject`, `2 subjects`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
