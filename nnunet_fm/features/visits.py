"""Whole visits: volumes of several sequences that go through an encoder together, as channels."""

from collections import Counter
from collections.abc import Sequence

from nnunet_fm.data.sequences import canonical_names, match_channels
from nnunet_fm.encoders import Encoder
from nnunet_fm.internal.errors import InputError


def visit_channels(encoder: Encoder, architecture: str, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the sequences of an encoder's channels, in order.

    Args:
        encoder: whose channels are named, or as many as there are columns.
        architecture: its name, for messages.
        columns: of a table's volumes, in any spelling.

    Raises:
        InputError: two columns of one sequence, a column that no channel takes, or a channel
            without a column that the encoder cannot do without.
    """
    names = canonical_names(columns)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        same = [c for c, name in zip(columns, names, strict=True) if name == twice[0]]
        raise InputError(
            f"columns {' and '.join(same)} are the same sequence, {twice[0]}; allowed: one of "
            f"them, e.g. --modalities {same[0]}"
        )
    known = encoder.input_spec.modalities
    if known is None:
        _check_number(encoder, architecture, columns)
        return names
    matched = [name for name in names if name in known]
    if len(matched) < len(names):
        raise InputError(
            f"encoder {architecture} takes {', '.join(known)}, and the table has "
            f"{', '.join(columns)}; allowed: columns of those, e.g. --modalities "
            f"{','.join(_columns_of(known, columns)) or known[0]}"
        )
    absent = [name for name in known if name not in names]
    if absent and not encoder.input_spec.zero_is_absent:
        raise InputError(_absent(encoder, architecture, absent, matched))
    return known


def _check_number(encoder: Encoder, architecture: str, columns: Sequence[str]) -> None:
    images = encoder.in_channels // encoder.input_spec.slices
    if len(columns) != images:
        raise InputError(
            f"encoder {architecture} takes {images} images at once, and the table has "
            f"{len(columns)} columns of volumes, {', '.join(columns)}; allowed: as many columns "
            f"(--modalities), or --unit volume"
        )


def _columns_of(sequences: Sequence[str], columns: Sequence[str]) -> list[str]:
    places = match_channels(sequences, columns)
    return [columns[place] for place in places if place is not None]


def _absent(
    encoder: Encoder, architecture: str, absent: Sequence[str], matched: Sequence[str]
) -> str:
    """Message for channels without a column."""
    message = f"encoder {architecture} needs {', '.join(absent)}, and the table has no such column"
    if not encoder.input_spec.subsets:
        return f"{message}; allowed: a table with it"
    names = ", ".join(f'"{name}"' for name in matched)
    return f"{message}; allowed: --encoder-option modalities='[{names}]'"
