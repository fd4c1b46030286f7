"""BrainDINO: DINO and iBOT with KoLeo on multi-crop views of slices (arXiv:2604.27277)."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, cast

from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.findings import Finding
from nnunet_fm_pretrain.data.store import Store
from nnunet_fm_pretrain.engine.method import Method
from nnunet_fm_pretrain.engine.objective import Objective
from nnunet_fm_pretrain.engine.recipe import Recipe
from nnunet_fm_pretrain.methods.braindino.recipe import BrainDinoRecipe


class BrainDinoMethod(Method):
    """Two stages: training from scratch, and high resolution from a stage 1 run."""

    name = "braindino"
    recipe: ClassVar[type[Recipe]] = BrainDinoRecipe

    def open_store(self, folder: Path) -> Store:
        """Open a slice store."""
        from nnunet_fm_pretrain.data.slice_store import SliceStore

        return SliceStore(folder)

    def build(self, recipe: Recipe) -> Objective:
        """Build student and teacher."""
        from nnunet_fm_pretrain.methods.braindino.objective import BrainDino

        return BrainDino(cast(BrainDinoRecipe, recipe))

    def check(self, recipe: Recipe, store: Store) -> Iterator[Finding]:
        """Warn of global crops that are larger than the slices."""
        from nnunet_fm_pretrain.data.slice_store import SliceStore

        views = cast(BrainDinoRecipe, recipe).views
        size = cast(SliceStore, store).size
        largest = max(pair.global_size for pair in views.pairs)
        if (views.slice_size or size) < largest:
            yield Finding(
                "warn",
                f"global crops of {largest} px are stretched from slices of {size} px",
                f"prepare with --size {largest} or more, or set views.slice_size={largest}",
            )

    def check_start(self, recipe: Recipe, init_from: Path | None) -> None:
        """Raise ValueError for a stage 2 that does not start from a run."""
        if cast(BrainDinoRecipe, recipe).stage == 2 and init_from is None:
            raise InputError("a stage 2 recipe starts from a stage 1 run; add: --init-from RUN")

    def check_resume(self, recipe: Recipe, earlier: Recipe, run: Path) -> None:
        """Raise ValueError if the run is of the other stage."""
        stage = cast(BrainDinoRecipe, recipe).stage
        before = cast(BrainDinoRecipe, earlier).stage
        if before != stage:
            raise InputError(
                f"{run} holds a stage {before} run, this recipe is of stage {stage}; "
                f"give a new folder, and start from that run: -o NEW --init-from {run}"
            )


METHOD = BrainDinoMethod()
