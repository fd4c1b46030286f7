"""BrainFM-MRI: a masked autoencoder of sessions, any of whose sequences may be missing."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.findings import Finding
from nnunet_fm.internal.messages import counted, some
from nnunet_fm_pretrain.data.store import Store
from nnunet_fm_pretrain.engine import checkpoints
from nnunet_fm_pretrain.engine.method import Method
from nnunet_fm_pretrain.engine.objective import Objective
from nnunet_fm_pretrain.engine.recipe import Recipe
from nnunet_fm_pretrain.engine.start import parse_earlier
from nnunet_fm_pretrain.methods.brainfm.recipe import BrainFMRecipe


class BrainFMMethod(Method):
    """A transformer on the visible patches of all scans of a session, and a decoder."""

    name = "brainfm"
    recipe = BrainFMRecipe

    def open_store(self, folder: Path) -> Store:
        """Open a volume store."""
        from nnunet_fm_pretrain.data.volume_store import VolumeStore

        return VolumeStore(folder)

    def check_start(self, recipe: Recipe, init_from: Path | None) -> None:
        """Raise ValueError for a run whose text has other names, which its rows would not be of."""
        if init_from is None:
            return
        content = checkpoints.load(checkpoints.latest(init_from))
        earlier = cast(BrainFMRecipe, parse_earlier(content, self, init_from))
        now = cast(BrainFMRecipe, recipe)
        for key, before, given in (
            ("sessions.names", earlier.sessions.names, now.sessions.names),
            ("text.source", earlier.text.source, now.text.source),
        ):
            if before != given:
                raise InputError(
                    f"{init_from} was trained with {key}={before}, this recipe has {given}; "
                    "allowed: the same, or its export (encoder.init=FILE)"
                )

    def build(self, recipe: Recipe) -> Objective:
        """Build encoder and decoder."""
        from nnunet_fm_pretrain.methods.brainfm.objective import BrainFM

        return BrainFM(cast(BrainFMRecipe, recipe))

    def check(self, recipe: Recipe, store: Store) -> Iterator[Finding]:
        """Report the scans of the sessions, those that are cropped, and those that are unused."""
        from nnunet_fm_pretrain.data.volume_store import VolumeStore
        from nnunet_fm_pretrain.methods.brainfm.sessions import SessionSource

        sessions = cast(BrainFMRecipe, recipe).sessions
        source = SessionSource(cast(VolumeStore, store), sessions)
        records = [record for session in source.sessions for record in session]
        numbers = [
            f"{name} {sum(record.sequence == name for record in records)}"
            for name in sessions.names
        ]
        what = f"{counted(len(source), 'session')} with {counted(len(records), 'scan')}"
        yield Finding("ok", f"{what}: {', '.join(numbers)}")
        apart = [
            f"{s[0].dataset}/{s[0].subject}"
            for s in source.sessions
            if len({r.grid for r in s}) > 1
        ]
        if apart:
            yield Finding(
                "warn",
                f"{counted(len(apart), 'session')} whose scans were cropped one by one, so that "
                f"places differ between them: {some(apart)}",
                "prepare with --registered if they are registered",
            )
        cropped = [r.volume for r in records if max(r.shape) > sessions.size]
        if cropped:
            yield Finding(
                "warn",
                f"{counted(len(cropped), 'scan')} larger than sessions.size={sessions.size}, "
                f"cropped around the middle: {some(cropped)}",
                "prepare them with a larger --spacing, or raise sessions.size",
            )
        if source.unused:
            yield Finding(
                "warn",
                f"{counted(len(source.unused), 'scan')} of other sequences, unused: "
                f"{some(source.unused)}",
                "name their sequences: sessions.names=[...]",
            )


METHOD = BrainFMMethod()
