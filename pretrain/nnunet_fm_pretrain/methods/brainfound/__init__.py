"""BrainFound: DINOv2 on slabs of several sequences and adjacent slices (arXiv:2510.23415)."""

from collections.abc import Iterator
from typing import cast

from nnunet_fm.internal.findings import Finding
from nnunet_fm.internal.messages import counted, some
from nnunet_fm_pretrain.data.store import Store
from nnunet_fm_pretrain.engine.objective import Objective
from nnunet_fm_pretrain.engine.recipe import Recipe
from nnunet_fm_pretrain.methods.braindino import BrainDinoMethod
from nnunet_fm_pretrain.methods.brainfound.recipe import BrainFoundRecipe


class BrainFoundMethod(BrainDinoMethod):
    """A DINOv2 transformer on slabs, from scratch or from a DINOv2 file."""

    name = "brainfound"
    recipe = BrainFoundRecipe

    def build(self, recipe: Recipe) -> Objective:
        """Build student and teacher."""
        from nnunet_fm_pretrain.methods.brainfound.objective import BrainFound

        return BrainFound(cast(BrainFoundRecipe, recipe))

    def check(self, recipe: Recipe, store: Store) -> Iterator[Finding]:
        """Report the sequences of the sessions, and sessions that are unused."""
        from nnunet_fm_pretrain.data.slice_store import SliceStore
        from nnunet_fm_pretrain.methods.brainfound.slabs import SlabSource

        yield from super().check(recipe, store)
        slabs = cast(BrainFoundRecipe, recipe).slabs
        source = SlabSource(cast(SliceStore, store), slabs)
        if slabs.sequences is None:
            return
        yield Finding("ok", source.describe_missing())
        if source.unused:
            what = f"{counted(len(source.unused), 'session')} with none of "
            what += f"{', '.join(slabs.sequences)}, unused: {some(source.unused)}"
            yield Finding("warn", what, "name their sequences: slabs.sequences=[...]")


METHOD = BrainFoundMethod()
