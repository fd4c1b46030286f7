"""The scored runs of an encoder at one ratio, and which of them are compared."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nnunet_fm.experiments.run_scores import ScoredRun
from nnunet_fm.nnunet.splits import Fold

Repeat = tuple[int, int | None]  # seed of the subset, seed of the training


class RunKey(NamedTuple):
    """What distinguishes the runs of one encoder at one ratio."""

    seed: int
    training_seed: int | None
    fold: Fold

    @classmethod
    def of(cls, scored: ScoredRun) -> "RunKey":
        """Return the key of a run."""
        return cls(scored.run.seed, scored.run.training_seed, scored.run.fold)

    @property
    def repeat(self) -> Repeat:
        """Both seeds; the folds of one repeat validate different cases."""
        return self.seed, self.training_seed


@dataclass(frozen=True)
class EncoderRuns:
    """The scored runs of one encoder at one ratio: its seeds and folds."""

    dataset: str
    encoder: str
    ratio: float
    runs: list[ScoredRun]

    @property
    def repeats(self) -> list[Repeat]:
        """The pairs of a subset seed and a training seed, sorted."""
        return sorted({key.repeat for key in self.keys}, key=repeat_order)

    @property
    def is_seeded(self) -> bool:
        """Whether every training has a seed."""
        return all(key.training_seed is not None for key in self.keys)

    @property
    def train_cases(self) -> int:
        """Number of training cases, the largest of the folds; 0 if unknown."""
        return max(scored.train_cases for scored in self.runs)

    @property
    def keys(self) -> set[RunKey]:
        """Seeds and fold of each run."""
        return {RunKey.of(scored) for scored in self.runs}

    @property
    def regions(self) -> list[str]:
        """Names of the regions, in the order of the scores."""
        return list(dict.fromkeys(score.region for score in self.runs[0].scores))

    def by_case(
        self, region: str, metric: str, keys: Collection[RunKey] | None = None
    ) -> dict[str, float]:
        """Return the mean over the seeds of each case, sorted by case.

        Args:
            region: name of the region.
            metric: key of the metric.
            keys: use only the runs of these seeds and folds; all if None.
        """
        values: dict[str, list[float]] = {}
        for scored in self.runs:
            if keys is not None and RunKey.of(scored) not in keys:
                continue
            for score in scored.scores:
                if score.region == region:
                    values.setdefault(score.case, []).append(getattr(score, metric))
        return {case: float(np.mean(values[case])) for case in sorted(values)}


def group_runs(scored: Sequence[ScoredRun]) -> list[EncoderRuns]:
    """Group runs by dataset, ratio and encoder; encoders keep the order in which they come."""
    groups: dict[tuple[str, float, str], list[ScoredRun]] = {}
    for one in scored:
        groups.setdefault((one.run.dataset, one.run.ratio, one.run.encoder), []).append(one)
    encoders = list(dict.fromkeys(one.run.encoder for one in scored))
    keys = sorted(groups, key=lambda key: (key[0], key[1], encoders.index(key[2])))
    return [
        EncoderRuns(dataset, encoder, ratio, groups[dataset, ratio, encoder])
        for dataset, ratio, encoder in keys
    ]


def shared_keys(one: EncoderRuns, other: EncoderRuns) -> tuple[set[RunKey], set[RunKey]]:
    """Select the runs of two encoders that are compared: those of the same seeds and fold.

    Training seeds count where all trainings of both have one.
    """
    if one.is_seeded and other.is_seeded:
        return one.keys & other.keys, one.keys & other.keys
    pairs = {(key.seed, key.fold) for key in one.keys} & {
        (key.seed, key.fold) for key in other.keys
    }
    first = {key for key in one.keys if (key.seed, key.fold) in pairs}
    second = {key for key in other.keys if (key.seed, key.fold) in pairs}
    return first, second


def repeat_order(repeat: Repeat) -> tuple[int, int]:
    """Return what repeats are sorted by: unseeded trainings come first."""
    seed, training_seed = repeat
    return seed, -1 if training_seed is None else training_seed
