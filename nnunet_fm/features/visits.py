"""Whole visits: volumes of several sequences that go through an encoder together, as channels."""

import logging
from collections.abc import Sequence

from nnunet_fm.data.sequences import canonical_names, match_channels
from nnunet_fm.encoders import Encoder
from nnunet_fm.internal.errors import InputError

logger = logging.getLogger(__name__)


def visit_channels(encoder: Encoder, architecture: str, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the sequences of an encoder's channels, in order.

    Args:
        encoder: whose channels are named, or as many as there are columns.
        architecture: its name, for messages.
        columns: of a table's volumes, in any spelling.

    Raises:
        InputError: an encoder of one image, two columns of one sequence, a column that no channel
            takes, or a channel without a column that the encoder cannot do without.
    """
    spec = encoder.input_spec
    images = encoder.in_channels // spec.slices
    if images == 1:
        raise InputError(f"encoder {architecture} takes one image at once; remove --together")
    known = spec.modalities
    if known is None:
        names = canonical_names(columns)
        check_columns(names, columns)
        if len(columns) != images:
            raise InputError(
                f"encoder {architecture} takes {images} images at once, and there are "
                f"{len(columns)} columns of volumes, {', '.join(columns)}; allowed: {images} of "
                "them (--modalities), or remove --together"
            )
        logger.warning(
            "the channels of %s have no names: they get %s in this order. If it was pretrained on "
            "one image in all channels, remove --together",
            architecture,
            ", ".join(columns),
        )
        return names
    check_columns(known, columns)
    absent = [name for name in known if name not in canonical_names(columns)]
    if absent and not spec.zero_is_absent:
        raise InputError(_absent(encoder, architecture, absent, columns))
    return known


def check_columns(channels: Sequence[str], columns: Sequence[str]) -> None:
    """Check that each column is the sequence of another channel.

    Args:
        channels: sequences that an encoder takes.
        columns: of volumes, in any spelling.

    Raises:
        InputError: two columns of one sequence, or a column of a sequence that is no channel.
    """
    names = canonical_names(columns)
    for name in names:
        same = [column for column, other in zip(columns, names, strict=True) if other == name]
        if len(same) > 1:
            raise InputError(
                f"columns {' and '.join(same)} are the same sequence, {name}; allowed: one of "
                f"them (modalities), e.g. {same[0]}"
            )
    others = [column for column, name in zip(columns, names, strict=True) if name not in channels]
    if others:
        places = match_channels(channels, columns)
        fitting = [columns[place] for place in places if place is not None]
        example = f", e.g. {','.join(fitting)}" if fitting else ""
        raise InputError(
            f"the encoder takes {', '.join(channels)}, and the modalities are "
            f"{', '.join(columns)}; allowed: modalities of those" + example
        )


def _absent(
    encoder: Encoder, architecture: str, absent: Sequence[str], columns: Sequence[str]
) -> str:
    """Message for channels without a column."""
    message = f"encoder {architecture} needs {', '.join(absent)}, and there is no such column"
    if not encoder.input_spec.subsets:
        return f"{message}; allowed: a table with it"
    names = ", ".join(f'"{name}"' for name in canonical_names(columns))
    return f"{message}; allowed: --encoder-option modalities='[{names}]'"
