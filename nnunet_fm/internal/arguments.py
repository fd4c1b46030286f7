"""What several commands take."""

import argparse

from nnunet_fm.internal.errors import InputError


def block_numbers(text: str) -> tuple[int, ...]:
    """Read `2,5,8,11`."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}; allowed: block numbers, e.g. 2,5,8,11"
        ) from None


def check_part(part: tuple[int, int]) -> None:
    """Refuse an impossible part: (number from 0, number of parts).

    Raises:
        ValueError: naming the parts there are.
    """
    number, parts = part
    if not 0 <= number < parts:
        raise InputError(f"part {number} of {parts}; allowed: --part-id from 0 to {parts - 1}")
