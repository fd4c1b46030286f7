"""Slabs of a slice store: adjacent slices of the sequences of one session."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from nnunet_fm.encoders.families.brainfound import sources_of
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import counted
from nnunet_fm_pretrain.data.records import SliceRecord
from nnunet_fm_pretrain.data.slice_store import SliceStore
from nnunet_fm_pretrain.methods.brainfound.recipe import SlabRecipe

Slab = Float[np.ndarray, "c h w"]


@dataclass(frozen=True)
class Stack:
    """The volumes that the slabs of a session are cut from.

    Attributes:
        records: those that are there, in the order of the recipe's sequences.
        sources: for each sequence, which of `records` fills it.
    """

    records: tuple[SliceRecord, ...]
    sources: tuple[int, ...]

    @property
    def subject(self) -> str:
        """Name of the person, unique in the store."""
        return f"{self.records[0].dataset}/{self.records[0].subject}"

    @property
    def missing(self) -> int:
        """Number of sequences that are copies."""
        return len(self.sources) - len(self.records)


class SlabSource:
    """Every slab of a store: all slices but those too near to the ends of their volume.

    Args:
        store: slices; for slabs of several slices, all of them (`prepare --slices all`).
        recipe: sequences and slices.

    Attributes:
        stacks: one per session, or per volume if the recipe names no sequence.
        channels: of a slab, sequence by sequence, each from the lowest slice to the highest.
        slices: adjacent slices of each sequence.
        unused: sessions that have none of the sequences.

    Raises:
        ValueError: a sequence that no session has, sequences of a session on different grids,
            slices that are not adjacent, or volumes with too few of them.
    """

    def __init__(self, store: SliceStore, recipe: SlabRecipe) -> None:
        self.store, self.recipe = store, recipe
        self.channels = recipe.channels
        self.reach = recipe.slices // 2
        self.slices: int = recipe.slices
        self.unused: list[str] = []
        if recipe.sequences is None:
            self.stacks = [Stack((record,), (0,)) for record in store.records]
        else:
            self.stacks = list(self._sessions(recipe.sequences))
        for stack in self.stacks:
            self._check_slices(stack.records[0])
        counts = [len(stack.records[0].slices) - 2 * self.reach for stack in self.stacks]
        self._ends = np.cumsum(counts)

    def _sessions(self, sequences: Sequence[str]) -> Iterator[Stack]:
        """Yield the sessions that have at least one of the sequences."""
        found = {record.sequence for record in self.store.records}
        unknown = [name for name in sequences if name not in found]
        if unknown:
            raise InputError(
                f"slabs.sequences: no session of {self.store.folder} has {', '.join(unknown)}; "
                f"the store has {', '.join(sorted(found))}"
            )
        for session in self.store.sessions():
            by_sequence = {record.sequence: record for record in session}
            present = [name for name in sequences if name in by_sequence]
            records = tuple(by_sequence[name] for name in present)
            if not records:
                self.unused.append(_name(session[0]))
                continue
            if len({r.grid for r in records}) > 1:
                raise InputError(
                    f"{_name(records[0])}: {', '.join(present)} lie on different grids; rerun "
                    "`pretrain prepare` with --registered if they are registered, else name one "
                    "sequence (slabs.sequences=[T1])"
                )
            yield Stack(records, tuple(sources_of(sequences, present)))

    def _check_slices(self, record: SliceRecord) -> None:
        """Raise ValueError unless a volume has a slab."""
        count = len(record.slices)
        if count <= 2 * self.reach:
            raise InputError(
                f"{record.volume} has {counted(count, 'slice')}, and slabs.slices="
                f"{self.recipe.slices} needs as many; allowed: fewer, or exclude the volume"
            )
        if self.reach and (np.diff(record.slices) != 1).any():
            raise InputError(
                f"the slices of {record.volume} are not adjacent; slabs.slices="
                f"{self.recipe.slices} needs a store made by `pretrain prepare --slices all`"
            )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def locate(self, index: int) -> tuple[Stack, int]:
        """Return the stack of slab number `index`, and the place of its middle slice."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        before = int(self._ends[number - 1]) if number else 0
        return self.stacks[number], index - before + self.reach

    def read(self, index: int, rng: np.random.Generator | None = None) -> Slab:
        """Read slab number `index`; nothing in it is random."""
        return self.read_slab(*self.locate(index))

    def read_slab(self, stack: Stack, place: int, only: int | None = None) -> Slab:
        """Read the slab around `place`, with all its sequences, or with copies of `only` one."""
        sources = stack.sources if only is None else [only] * len(stack.sources)
        slices = {number: self._slices(stack.records[number], place) for number in set(sources)}
        return np.concatenate([slices[number] for number in sources])

    def _slices(self, record: SliceRecord, place: int) -> Float[np.ndarray, "k h w"]:
        return self.store.read_slab(record, place - self.reach, self.recipe.slices)

    def neighbour(self, stack: Stack, place: int, rng: np.random.Generator) -> int:
        """Draw the place of an adjacent slab; its own where there is none."""
        last = len(stack.records[0].slices) - 1 - self.reach
        places = [p for p in (place - 1, place + 1) if self.reach <= p <= last]
        return int(rng.choice(places)) if places else place

    def describe_missing(self) -> str:
        """Say how many sessions have which sequence, for `pretrain doctor`."""
        sequences = self.recipe.sequences or ()
        counts = [
            f"{name} {sum(name in {r.sequence for r in s.records} for s in self.stacks)}"
            for name in sequences
        ]
        return f"sessions with {', '.join(counts)}, of {len(self.stacks)}"


def _name(record: SliceRecord) -> str:
    parts = (record.dataset, record.subject, record.session)
    return "/".join(part for part in parts if part)
