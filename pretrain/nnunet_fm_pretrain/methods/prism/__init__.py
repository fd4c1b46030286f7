"""PRISM: anatomy and sequence told apart, on crops of scans with known TR, TE and flip angle."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

from nnunet_fm.internal.findings import Finding
from nnunet_fm.internal.messages import counted, some
from nnunet_fm_pretrain.data.store import Store
from nnunet_fm_pretrain.engine.method import Method
from nnunet_fm_pretrain.engine.objective import Objective
from nnunet_fm_pretrain.engine.recipe import Recipe
from nnunet_fm_pretrain.methods.prism.recipe import PrismRecipe

if TYPE_CHECKING:
    from nnunet_fm_pretrain.data.volume_store import VolumeStore


class PrismMethod(Method):
    """A Swin transformer on masked crops, a generator of other contrasts, and a discriminator."""

    name = "prism"
    recipe = PrismRecipe
    find_unused_parameters = True

    def open_store(self, folder: Path) -> Store:
        """Open a volume store."""
        from nnunet_fm_pretrain.methods.prism.crops import AcquiredVolumes

        return AcquiredVolumes(folder)

    def build(self, recipe: Recipe) -> Objective:
        """Build encoder, generator and heads."""
        from nnunet_fm_pretrain.methods.prism.objective import Prism

        return Prism(cast(PrismRecipe, recipe))

    def check(self, recipe: Recipe, store: Store) -> Iterator[Finding]:
        """Report of how many volumes TR, TE and flip angle are known, and their regions."""
        from nnunet_fm_pretrain.data.acquisition import PARAMETERS
        from nnunet_fm_pretrain.methods.prism.crops import check_store

        own, volumes = cast(PrismRecipe, recipe), cast("VolumeStore", store)
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
        yield _regions(own, volumes)
        small = [r.volume for r in volumes.records if min(r.shape) < own.views.size]
        if small:
            yield Finding(
                "warn",
                f"{counted(len(small), 'volume')} smaller than views.size={own.views.size}, "
                f"surrounded by 0: {some(small)}",
                "prepare them with a smaller --spacing, or lower views.size",
            )


def _regions(recipe: PrismRecipe, volumes: "VolumeStore") -> Finding:
    """Report the regions of the volumes, and those that the recipe does not name."""
    counts = Counter(r.acquisition.region or "unknown" for r in volumes.records)
    listed = ", ".join(f"{region} {count}" for region, count in sorted(counts.items()))
    named = recipe.objective.regions
    if not named:
        return Finding("ok", f"objective.regions is empty: no loss of body regions ({listed})")
    unused = [region for region in counts if region not in (*named, "unknown")]
    if unused:
        return Finding(
            "warn",
            f"regions of the volumes: {listed}; not in objective.regions, so unused: "
            f"{some(sorted(unused))}",
            "name them in objective.regions, or give them the names there in the table",
        )
    return Finding("ok", f"regions of the volumes: {listed}")


METHOD = PrismMethod()
