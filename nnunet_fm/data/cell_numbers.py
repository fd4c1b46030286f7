"""Read the numbers in a table's cells, and find those that are not what they seem."""

import logging
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some

MISSING_CODES = (-1, -9, -99, -999, -9999)  # of SPSS and PLINK, among others
LARGE_CODES = (99, 999, 9999, 99999)
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}")  # 1.303, which may be 1303
Values = Float[np.ndarray, " n"]

logger = logging.getLogger(__name__)


def read_numbers(column: str, texts: Sequence[str]) -> Values:
    """Convert the cells of a column to numbers; values that may be codes give a warning.

    Raises:
        ValueError: a value that is not a finite number, or points that separate thousands.
    """
    try:
        values = np.array([read_number(text) for text in texts])
    except ValueError as error:
        raise InputError(
            f"column {column} holds a value that is not a number: {error}. Write 63.5 with a "
            "point, and leave unknown values empty"
        ) from None
    if not np.isfinite(values).all():
        raise InputError(
            f"column {column} holds values that are not finite; leave them empty or write n/a"
        )
    _refuse_thousands(column, texts)
    _warn_of_codes(column, values)
    return values


def read_number(text: str) -> float:
    """Convert a cell to a number.

    Raises:
        ValueError: not a number.
    """
    if "_" in text:  # Python reads 1_0 as 10
        raise ValueError(text)
    return float(text)


def _refuse_thousands(column: str, texts: Sequence[str]) -> None:
    """Refuse a column in which 999 is followed by 1.000.

    It has points with three digits behind them, whole numbers from 100 to 999, and nothing else
    that would tell the point from a decimal point.
    """
    pointed = [text for text in texts if "." in text]
    whole = [abs(read_number(text)) for text in texts if "." not in text]
    in_thousands = bool(pointed) and all(map(THOUSANDS.fullmatch, pointed))
    if in_thousands and 100 <= max(whole, default=0) < 1000:
        raise InputError(
            f"column {column} holds {some(pointed, 2)} and {max(whole):g}: the point seems to "
            "separate thousands. Write 1303 without it; if it is a decimal point, write 1.3030"
        )


def _warn_of_codes(column: str, values: Values) -> None:
    """Warn of usual codes for missing values: the only negative value, or far above the others."""
    for code in sorted({*MISSING_CODES, *LARGE_CODES} & set(values.tolist())):
        others = values[values != code]
        is_negative = code in MISSING_CODES and not (others < 0).any()
        is_far = code in LARGE_CODES and code > 2 * others.max(initial=-np.inf)
        if len(others) and (is_negative or is_far):
            logger.warning(
                "column %s holds %g in %d rows, and no other %s value; if it stands for a "
                "missing value, leave these cells empty",
                column,
                code,
                (values == code).sum(),
                "negative" if is_negative else "so large",
            )
