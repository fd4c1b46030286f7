"""Masked autoencoder of slices (He et al., CVPR 2022): hide most patches, reconstruct them."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

from nnunet_fm.internal.findings import Finding
from nnunet_fm_pretrain.data.store import Store
from nnunet_fm_pretrain.engine.method import Method
from nnunet_fm_pretrain.engine.objective import Objective
from nnunet_fm_pretrain.engine.recipe import Recipe
from nnunet_fm_pretrain.methods.mae2d.recipe import Mae2dRecipe


class Mae2dMethod(Method):
    """A DINOv3 transformer that sees a quarter of the patches, and a light decoder."""

    name = "mae2d"
    recipe = Mae2dRecipe

    def open_store(self, folder: Path) -> Store:
        """Open a slice store."""
        from nnunet_fm_pretrain.data.slice_store import SliceStore

        return SliceStore(folder)

    def build(self, recipe: Recipe) -> Objective:
        """Build encoder and decoder."""
        from nnunet_fm_pretrain.methods.mae2d.objective import Mae2d

        return Mae2d(cast(Mae2dRecipe, recipe))

    def check(self, recipe: Recipe, store: Store) -> Iterator[Finding]:
        """Warn of crops that are larger than the slices."""
        from nnunet_fm_pretrain.data.slice_store import SliceStore

        side = cast(Mae2dRecipe, recipe).views.size
        size = cast(SliceStore, store).size
        if size < side:
            yield Finding(
                "warn",
                f"crops of {side} px are stretched from slices of {size} px",
                f"prepare with --size {side} or more, or set views.size={size}",
            )


METHOD = Mae2dMethod()
