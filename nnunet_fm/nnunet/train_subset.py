"""Subsets of the training cases: nested prefixes of one permutation, or the release's rule."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from nnunet_fm.data.nested_subset import nested_subset
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown

SubsetRule = Literal["nested", "reference"]
REFERENCE_SEED = 42


@dataclass(frozen=True)
class TrainSubset:
    """Which part of a training split is used.

    Attributes:
        ratio: share of the training cases, in (0, 1].
        seed: of the permutation.
        rule: `nested` takes prefixes of one permutation, so that every smaller subset lies in every
            larger one; `reference` is the BrainDINO release's `random.seed(42); random.sample(keys,
            max(1, int(n * ratio)))` (braindino_trainer.py:173-176), whose subsets need not be
            nested.

    Raises:
        ValueError: ratio, seed or rule outside what is allowed.
    """

    ratio: float = 1.0
    seed: int = REFERENCE_SEED
    rule: str = "nested"

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise InputError(f"train ratio {self.ratio}; allowed: above 0, up to 1, e.g. 0.1")
        if self.rule not in get_args(SubsetRule):
            raise InputError(unknown("subset rule", self.rule, get_args(SubsetRule)))
        if self.rule == "reference" and self.seed != REFERENCE_SEED:
            raise InputError(
                f"subset seed {self.seed}; the reference rule is defined for seed "
                f"{REFERENCE_SEED} only"
            )

    @property
    def percent(self) -> str:
        """The ratio as names of plans have it: `010`, `100`, `012p50`."""
        return f"{self.ratio * 100:06.2f}".replace(".", "p").removesuffix("p00")

    @classmethod
    def from_plans(cls, plans: dict[str, Any]) -> "TrainSubset":
        """Read `train_subset` of plans; the whole training split if there is none."""
        return cls(**plans.get("train_subset", {}))

    def to_json(self) -> dict[str, Any]:
        """Convert to the content of `train_subset` in plans."""
        return asdict(self)

    def select(self, keys: Sequence[str]) -> list[str]:
        """Select cases, sorted; the global random generators are not touched."""
        ordered = sorted(str(k) for k in keys)
        count = max(1, int(len(ordered) * self.ratio))
        if count >= len(ordered):
            return ordered
        if self.rule == "reference":
            return sorted(random.Random(self.seed).sample([str(k) for k in keys], count))
        return nested_subset(ordered, self.ratio, self.seed, order="permutation")
