"""How often 95 % intervals of few cases contain the true value.

Means of cases as `report` and `analyse robustness` give them, for values distributed like a
difference, Dice, Dice with failures and HD95; and the metrics of `heads run`. Each is drawn many
times from a population whose true value is known, with as many cases as a small test set has.
Reference: BCa bootstrap intervals, which the program uses from 15 cases on.

The last line printed is JSON.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial

import numpy as np
from scipy import stats

from nnunet_fm.evaluation.classification import weighted_auc
from nnunet_fm.evaluation.intervals import Bootstrap, Statistic, bca_limits, weighted_mean

COUNTS = (5, 7, 10, 14, 20)
RESAMPLES = 1000
Generator = np.random.Generator
# a statistic of drawn cases, their strata, and its true value
Drawn = tuple[Statistic, np.ndarray | None, float]


def difference(n: int, rng: Generator) -> Drawn:
    """Return the mean of normal differences."""
    return weighted_mean(rng.normal(0.02, 0.05, n)), None, 0.02


def dice(n: int, rng: Generator) -> Drawn:
    """Return the mean of values between 0 and 1 that lean to 1."""
    return weighted_mean(rng.beta(8, 2, n)), None, 0.8


def dice_with_failures(n: int, rng: Generator) -> Drawn:
    """Return the mean of Dice where one case in ten fails."""
    values = np.where(rng.random(n) < 0.1, rng.beta(1, 4, n), rng.beta(20, 3, n))
    return weighted_mean(values), None, 0.9 * 20 / 23 + 0.1 * 0.2


def hd95(n: int, rng: Generator) -> Drawn:
    """Return the mean of log-normal distances, median 4.5 mm."""
    return weighted_mean(np.exp(rng.normal(1.5, 0.9, n))), None, float(np.exp(1.5 + 0.9**2 / 2))


def mae(n: int, rng: Generator) -> Drawn:
    """Return the mean absolute error of normal errors."""
    return weighted_mean(np.abs(rng.normal(0, 5, n))), None, 5 * float(np.sqrt(2 / np.pi))


def auc(separation: float, n: int, rng: Generator) -> Drawn:
    """Return the AUC of two normal classes of equal size."""
    truth = (np.arange(n) < n // 2).astype(int)
    scores = separation * truth + rng.standard_normal(n)
    true = float(stats.norm.cdf(separation / np.sqrt(2)))
    return partial(weighted_auc, truth, scores), truth, true


POPULATIONS: dict[str, Callable[[int, Generator], Drawn]] = {
    "difference, normal": difference,
    "Dice": dice,
    "Dice, 1 in 10 fails": dice_with_failures,
    "HD95, log-normal": hd95,
    "MAE": mae,
    "AUC, true 0.64": partial(auc, 0.5),
    "AUC, true 0.76": partial(auc, 1.0),
    "AUC, true 0.92": partial(auc, 2.0),
}


def coverage(population: str, n: int, samples: int) -> tuple[float, float]:
    """Return the shares of samples whose interval, and whose BCa interval, holds the true value."""
    hits = bca_hits = 0
    for seed in range(samples):
        statistic, strata, true = POPULATIONS[population](n, np.random.default_rng(seed))
        bootstrap = Bootstrap(np.arange(n), strata, RESAMPLES, seed)
        interval = bootstrap.interval(statistic)
        drawn, jackknife = statistic(bootstrap.drawn), statistic(bootstrap.without_one)
        low, high = bca_limits(drawn, interval.value, jackknife, 0.95)
        hits += interval.low <= true <= interval.high
        bca_hits += low <= true <= high
    return hits / samples, bca_hits / samples


def main() -> None:
    """Print a line per population and number of cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1000)
    samples = parser.parse_args().samples
    results = {}
    for population in POPULATIONS:
        for n in COUNTS:
            ours, bca = coverage(population, n, samples)
            results[f"{population}, n={n}"] = {"ours": ours, "bca": bca}
            print(f"{population:22} n={n:2}  ours {100 * ours:5.1f} %  BCa {100 * bca:5.1f} %")
    print(json.dumps({"samples": samples, "coverage": results}))


if __name__ == "__main__":
    main()
