"""PRISM: anatomy and sequence told apart, on crops of scans with known TR, TE and flip angle."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

from nnunet_fm.internal.findings import Finding
from nnunet_fm.internal.messages import counted, some
from nnunet_fm_pretrain.data.store import Store
from nnunet_fm_pretrain.engine.method import Method
from nnunet_fm_pretrain.engine.objective import Objective
from nnunet_fm_pretrain.engine.recipe import Recipe
from nnunet_fm_pretrain.methods.prism.recipe import PrismRecipe


class PrismMethod(Method):
    """A Swin transformer on masked crops, a generator of other contrasts, and a discriminator."""

    name = "prism"
    recipe = PrismRecipe
    find_unused_parameters = True

    def open_store(self, folder: Path) -> Store:
        """Open a volume store."""
        from nnunet_fm_pretrain.data.volume_store import VolumeStore

        return VolumeStore(folder)

    def build(self, recipe: Recipe) -> Objective:
        """Build encoder, generator and heads."""
        from nnunet_fm_pretrain.methods.prism.objective import Prism

        return Prism(cast(PrismRecipe, recipe))

    def check(self, recipe: Recipe, store: Store) -> Iterator[Finding]:
        """Report of how many volumes TR, TE, flip angle and region are known."""
        from nnunet_fm_pretrain.data.volume_store import VolumeStore
        from nnunet_fm_pretrain.methods.prism.crops import PARAMETERS, check_store

        own, volumes = cast(PrismRecipe, recipe), cast(VolumeStore, store)
        check_store(volumes, own)
        known = {
            name: {getattr(r.acquisition, name) for r in volumes.records} - {None}
            for name in PARAMETERS
        }
        numbers = [
            f"{name} {sum(getattr(r.acquisition, name) is not None for r in volumes.records)}"
            for name in PARAMETERS
        ]
        yield Finding("ok", f"{counted(len(volumes), 'volume')}; known: {', '.join(numbers)}")
        useless = [name for name, values in known.items() if len(values) < 2]
        if useless:
            yield Finding(
                "warn",
                f"nothing can be learned from {some(useless)}: fewer than two values are known",
                "add columns to the table, or sidecars; see docs/pretraining.md, PRISM",
            )
        if not own.objective.regions:
            yield Finding("ok", "objective.regions is empty: no loss of body regions")
        small = [r.volume for r in volumes.records if min(r.shape) < own.views.size]
        if small:
            yield Finding(
                "warn",
                f"{counted(len(small), 'volume')} smaller than views.size={own.views.size}, "
                f"surrounded by 0: {some(small)}",
                "prepare them with a smaller --spacing, or lower views.size",
            )


METHOD = PrismMethod()
