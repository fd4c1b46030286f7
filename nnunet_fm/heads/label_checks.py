"""Check labels that become classes as they are in the table."""

import json
import logging
import unicodedata
from collections.abc import Sequence

from nnunet_fm.data.cell_numbers import read_number
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import some

# labels that may stand for a missing value, in lower case; they are classes if nobody objects
UNKNOWN_LABELS = (
    "unknown",
    "not known",
    "indeterminate",
    "inconclusive",
    "equivocal",
    "missing",
    "not reported",
    "not assessed",
    "not tested",
    "not done",
)

logger = logging.getLogger(__name__)


def check_labels(column: str, texts: Sequence[str]) -> None:
    """Check labels that no task numbers; warn of labels that may mean a missing value.

    Raises:
        ValueError: labels that differ only in case, spaces or number format: they are one class.
    """
    labels = sorted(set(texts))
    variants: dict[str, list[str]] = {}
    for text in labels:
        variants.setdefault(_plain_label(text), []).append(text)
    same = [" and ".join(alike) for alike in variants.values() if len(alike) > 1]
    if same:
        numbers = ", ".join(f"{_quoted(text)}: NUMBER" for text in labels[:4])
        raise InputError(
            f"labels of {column} differ only in case, spaces or number format: {some(same)}. Write "
            f"them alike in the table, or number the classes: classes='{{{numbers}}}'"
        )
    for text in labels:
        if _plain_label(text).strip("[]()") in UNKNOWN_LABELS:
            logger.warning(
                "%s of %s is a class of %d rows; to leave them out, name all labels, with null for "
                "this one: classes='{%s: null, ...}'",
                text,
                column,
                list(texts).count(text),
                _quoted(text),
            )


def _quoted(text: str) -> str:
    """Return a label as YAML takes it for text: a plain 1 would be a number."""
    return json.dumps(text, ensure_ascii=False)


def _plain_label(text: str) -> str:
    """Return a label in lower case, with single spaces, or as a number without its format."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    try:
        return str(read_number(plain))
    except ValueError:
        return plain
