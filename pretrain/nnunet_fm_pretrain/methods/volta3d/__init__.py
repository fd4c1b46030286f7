"""VolTA-3D: alignment of summaries and patches, and reconstruction, on crops of volumes."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.findings import Finding
from nnunet_fm_pretrain.data.store import Store
from nnunet_fm_pretrain.engine.method import Method
from nnunet_fm_pretrain.engine.objective import Objective
from nnunet_fm_pretrain.engine.recipe import Recipe
from nnunet_fm_pretrain.methods.volta3d.recipe import Volta3dRecipe


class Volta3dMethod(Method):
    """A 3-D transformer of MONAI's on crops of volumes."""

    name = "volta3d"
    recipe = Volta3dRecipe

    def open_store(self, folder: Path) -> Store:
        """Open a volume store."""
        from nnunet_fm_pretrain.data.volume_store import VolumeStore

        return VolumeStore(folder)

    def build(self, recipe: Recipe) -> Objective:
        """Build student, teacher and decoder."""
        from nnunet_fm_pretrain.methods.volta3d.objective import Volta3d

        return Volta3d(cast(Volta3dRecipe, recipe))

    def check(self, recipe: Recipe, store: Store) -> Iterator[Finding]:
        """Check that the store holds volumes that the crops can be cut from."""
        from nnunet_fm_pretrain.data.volume_store import VolumeStore
        from nnunet_fm_pretrain.methods.volta3d.batches import check_volumes

        views = cast(Volta3dRecipe, recipe).views
        check_volumes(cast(VolumeStore, store), views)
        yield Finding("ok", f"global crops of {views.global_size} voxels fit all volumes")

    def check_resume(self, recipe: Recipe, earlier: Recipe, run: Path) -> None:
        """Raise ValueError for other micro-batches, if KoLeo looks for neighbours inside them."""
        now, before = cast(Volta3dRecipe, recipe), cast(Volta3dRecipe, earlier)
        if now.objective.koleo_weight and now.run.micro_batch != before.run.micro_batch:
            raise InputError(
                f"{run} was begun with run.micro_batch={before.run.micro_batch}, now "
                f"{now.run.micro_batch}: KoLeo would have other neighbours. Allowed: the same"
            )


METHOD = Volta3dMethod()
