"""Which blocks or stages of an encoder are tapped."""

from collections.abc import Sequence

from nnunet_fm.internal.errors import InputError


def default_taps(depth: int) -> tuple[int, ...]:
    """Return the last block of each quarter; 2, 5, 8, 11 of 12 (BrainDINO, section 4.3.1)."""
    return tuple(max(0, round(depth * quarter / 4) - 1) for quarter in (1, 2, 3, 4))


def unetr_taps(depth: int) -> tuple[int, ...]:
    """Return the blocks that UNETR taps: 3, 6, 9 (0-based) and the last for depth 12."""
    return (*(depth * quarter // 4 for quarter in (1, 2, 3)), depth - 1)


def checked_taps(taps: Sequence[int] | None, depth: int, default: Sequence[int]) -> tuple[int, ...]:
    """Return `taps`, or the default if None.

    Raises:
        InputError: numbers that are not increasing or lie outside 0 to depth - 1.
    """
    chosen = tuple(int(tap) for tap in (default if taps is None else taps))
    outside = any(not 0 <= tap < depth for tap in chosen)
    if not chosen or outside or list(chosen) != sorted(set(chosen)):
        raise InputError(
            f"taps {list(chosen)}: allowed are increasing block numbers from 0 to {depth - 1}, "
            f"e.g. {list(default)}"
        )
    return chosen
