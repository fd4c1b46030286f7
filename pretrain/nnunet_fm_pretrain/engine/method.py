"""The description of a pretraining method: what the engine and the commands ask before a run."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from nnunet_fm.internal.findings import Finding
from nnunet_fm_pretrain.data.store import Store
from nnunet_fm_pretrain.engine.objective import Objective
from nnunet_fm_pretrain.engine.recipe import Recipe


class Method(ABC):
    """A pretraining method. One object of it, called `METHOD`, is what a method's folder declares.

    Heavy imports belong inside the functions: a method is listed without them.

    Attributes:
        name: the value of `objective.method` in recipes.
        recipe: class of its recipes.
        find_unused_parameters: passed to DistributedDataParallel; needed where a phase or a batch
            does not use every trainable parameter.
    """

    name: ClassVar[str]
    recipe: ClassVar[type[Recipe]]
    find_unused_parameters: ClassVar[bool] = False

    @abstractmethod
    def open_store(self, folder: Path) -> Store:
        """Open the kind of store that the method reads.

        Raises:
            FileNotFoundError, ValueError: no such store, or one of another kind.
        """

    @abstractmethod
    def build(self, recipe: Recipe) -> Objective:
        """Build the networks, initialised from the recipe's seed.

        Raises:
            ValueError: the recipe asks for something that the method cannot train.
        """

    def check(self, recipe: Recipe, store: Store) -> Iterator[Finding]:
        """Check how a recipe fits a store, for `pretrain doctor`."""
        yield from ()

    def check_start(self, recipe: Recipe, init_from: Path | None) -> None:
        """Raise ValueError if a new run cannot start from `init_from` (None: from nothing)."""
        return

    def check_resume(self, recipe: Recipe, earlier: Recipe, run: Path) -> None:
        """Raise ValueError if the recipe cannot continue `run`, where the reason is the method's.

        Any other difference between the two recipes is reported by the engine.
        """
        return
