"""Vectors of the names of MRI sequences, by which a network knows what each image shows."""

import hashlib
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown

HASH = "hash"
TABLE = "table"
LEARNED = "learned"
SOURCES = (HASH, TABLE, LEARNED)
LONGEST_PIECE = 5  # letters of the pieces of a name that are hashed, from 2


def hashed(name: str, width: int) -> Float[np.ndarray, " w"]:
    """Return the vector of any name, without a language model; similar names have similar vectors.

    The pieces of 2 to 5 letters of the name, with its ends marked, are hashed to signs; the vector
    is their mean, scaled to a root mean square of 1. It is the same on every machine.

    Args:
        name: any text; case does not matter.
        width: of the vector.

    Example:
        >>> t1, t1c, flair = (hashed(name, 768) for name in ("T1", "T1c", "FLAIR"))
        >>> bool(t1 @ t1c > 5 * abs(t1 @ flair))
        True
    """
    text = f"<{name.lower()}>"
    pieces = [
        text[start : start + length]
        for length in range(2, LONGEST_PIECE + 1)
        for start in range(len(text) - length + 1)
    ]
    total = np.zeros(width)
    for piece in pieces:
        digest = hashlib.shake_256(piece.encode()).digest((width + 7) // 8)
        bits = np.unpackbits(np.frombuffer(digest, np.uint8))[:width]
        total += 2.0 * bits - 1
    return total / np.sqrt(np.mean(total**2))


_hashed_once = cache(hashed)


def normalised(table: Float[np.ndarray, "k w"]) -> Float[np.ndarray, "k w"]:
    """Centre the vectors of a language model and scale them to a root mean square of 1.

    The vectors of such models have a large part in common; centred, they tell names apart.

    Args:
        table: vectors of two names or more.

    Raises:
        InputError: fewer than two names, or vectors that are all the same.
    """
    centred = table - table.mean(axis=0)
    size = np.sqrt(np.mean(centred**2))
    if len(table) < 2 or size == 0:
        raise InputError(
            f"a table of {len(table)} names whose vectors are all alike; allowed: two names or "
            "more, with vectors that differ"
        )
    return centred / size


class ModalityText(nn.Module):
    """The vectors of known names, kept with the weights, so that no language model is needed later.

    Args:
        names: of the sequences, one row of the table each.
        width: of a vector.
        source: `hash`, whose vectors are those of `hashed`, also for names that are not known;
            `table`, whose vectors come with the weights; or `learned`, whose vectors are trained,
            with one more for all names that are not known.

    Attributes:
        known: whether the vectors are there; those of a `table` come with the weights.

    Raises:
        InputError: no names, a name twice, or another source.

    Example:
        >>> text = ModalityText(("T1", "T2"), width=16)
        >>> tuple(text.of(["T2", "FLAIR", "T1"]).shape)
        (3, 16)
    """

    table: Tensor

    def __init__(self, names: Sequence[str], width: int, source: str = HASH) -> None:
        super().__init__()
        if source not in SOURCES:
            raise InputError(f"text {source!r}; allowed: {', '.join(SOURCES)}")
        if not names or len(set(names)) < len(names):
            raise InputError(f"names {', '.join(names)}; allowed: one or more, each once")
        self.names, self.width, self.source = tuple(names), width, source
        self.known = source != TABLE
        self.register_load_state_dict_post_hook(_note_vectors)
        if source == LEARNED:
            self.table = nn.Parameter(torch.randn(len(names) + 1, width))
            return
        rows = [hashed(name, width) for name in names] if source == HASH else []
        table = np.stack(rows) if rows else np.full((len(names), width), np.nan)
        self.register_buffer("table", torch.as_tensor(table, dtype=torch.float32))

    def fill(self, table: Float[Tensor, "k w"]) -> None:
        """Set the vectors of the names."""
        self.table.copy_(table)
        self.known = True

    def check(self, names: Sequence[str]) -> None:
        """Raise InputError for a name without a vector."""
        for name in names:
            if self.source == TABLE and name not in self.names:
                hint = "The text of this encoder has no other names."
                raise InputError(unknown("modality", name, self.names, hint))

    def of(self, names: Sequence[str]) -> Float[Tensor, "m w"]:
        """Return the vectors of names, in their order.

        Raises:
            InputError: a name without a vector, or a table that was not loaded.
        """
        self.check(names)
        if not self.known:
            raise InputError(
                f"text={TABLE}: the vectors come with trained weights, and there are none; give "
                f"the file of an encoder, or text={HASH}"
            )
        return torch.stack([self._vector(name) for name in names])

    def _vector(self, name: str) -> Float[Tensor, " w"]:
        if name in self.names:
            return self.table[self.names.index(name)]
        if self.source == LEARNED:
            return self.table[-1]
        return torch.as_tensor(_hashed_once(name, self.width)).to(self.table)


def _note_vectors(text: ModalityText, incompatible: object) -> None:
    """Note after loading whether the vectors are there; a check at each step would slow a GPU."""
    if text.source == TABLE and not text.table.is_meta:
        text.known = not bool(text.table.isnan().any())
