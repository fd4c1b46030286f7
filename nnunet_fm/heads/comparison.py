"""Encoders against each other on the same tested cases: paired tests, adjusted for their number."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from jaxtyping import Float, Integer, Shaped
from scipy.stats import rankdata

from nnunet_fm.evaluation.classification import delong
from nnunet_fm.evaluation.intervals import Statistic
from nnunet_fm.evaluation.paired_tests import benjamini_hochberg, holm, mcnemar_p, permutation_p
from nnunet_fm.heads.metrics import Metric, TrueTargets, difference
from nnunet_fm.heads.models import has_scores
from nnunet_fm.heads.saved_runs import FinishedRun, Predictions
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.markdown import markdown_table

RESAMPLES, SWAPS = 2000, 2000
RANKED = ("AUC", "C-index")  # look at the order of the outputs only


@dataclass(frozen=True)
class Comparison:
    """Two encoders, one model, ratio and metric.

    Attributes:
        task, model, ratio, metric: what is compared.
        first, second: encoders.
        first_value, second_value: mean over the seeds.
        difference, low, high: second minus first, and its 95 % BCa limits over the tested cases.
        p: two-sided; of swaps of each subject's outputs (all seeds together), or McNemar's (kNN,
            first seed, one case a subject).
        test: which.
        holm, benjamini_hochberg: p adjusted within the family: all ratios and pairs of one task,
        model and metric.
        p_delong: AUC of two classes, one split, one case a subject: DeLong's p for the outputs
            averaged over seeds; NaN elsewhere.
        seeds, n_test: seeds and cases.
    """

    task: str
    model: str
    ratio: float
    metric: str
    first: str
    second: str
    first_value: float
    second_value: float
    difference: float
    low: float
    high: float
    p: float
    test: str
    holm: float
    benjamini_hochberg: float
    p_delong: float
    seeds: int
    n_test: int


Outputs = Shaped[np.ndarray, "n s ..."]  # of each case, for each seed


def compare(runs: Sequence[FinishedRun]) -> list[Comparison]:
    """All pairs of encoders, at every ratio.

    Args:
        runs: of one task, an encoder each.

    Raises:
        ValueError: fewer than two runs, of several tasks or protocols, or with other tested cases.
        FileNotFoundError: a ratio and seed that is not finished.
    """
    if len(runs) < 2:
        raise InputError(f"{len(runs)} run given; a comparison needs 2 or more")
    for key in ("task", "protocol", "tested", "classes"):
        if len({str(r.about[key]) for r in runs}) > 1:
            raise InputError(
                f"the runs differ in {key}: {', '.join(str(r.about[key]) for r in runs)}; allowed: one"
            )
    shared = sorted(set.intersection(*({(r.ratio, r.seed) for r in run.results} for run in runs)))
    if not shared:
        raise InputError("the runs have no ratio and seed in common")
    found = []
    for ratio in sorted({ratio for ratio, _ in shared}):
        seeds = [s for r, s in shared if r == ratio]
        of_run = [[run.predictions(ratio, seed) for seed in seeds] for run in runs]
        for a, b in combinations(range(len(runs)), 2):
            names = (runs[a].about["encoder"], runs[b].about["encoder"])
            for model in of_run[a][0]:
                if model != "trivial" and all(model in p for p in (*of_run[a], *of_run[b])):
                    pair = [[p[model] for p in of_run[n]] for n in (a, b)]
                    found += _pair(runs[a].about["task"], model, ratio, names, pair)
    return _adjusted(found)


def _pair(
    task: str,
    model: str,
    ratio: float,
    names: tuple[str, str],
    pair: Sequence[Sequence[Predictions]],
) -> list[Comparison]:
    truth = pair[0][0].truth
    if len({p.cases for side in pair for p in side}) > 1:
        raise InputError(
            f"{names[0]} and {names[1]} were tested on different cases; pairs need the same"
        )
    first, second = (np.stack([p.output for p in side], axis=1) for side in pair)
    bootstrap = truth.bootstrap(RESAMPLES)
    found = []
    for metric, function in truth.metrics(ranks=has_scores(model)).items():
        sides = [_over_seeds(function, o) for o in (first, second)]
        values = [float(side(bootstrap.unit_weights)[0]) for side in sides]
        interval = bootstrap.interval(difference(*sides))
        p, test = _p(truth, metric, function, model, first, second)
        found.append(
            Comparison(
                task=task,
                model=model,
                ratio=ratio,
                metric=metric,
                first=names[0],
                second=names[1],
                first_value=values[0],
                second_value=values[1],
                difference=interval.value,
                low=interval.low,
                high=interval.high,
                p=p,
                test=test,
                holm=p,
                benjamini_hochberg=p,
                p_delong=_delong(truth, metric, first, second),
                seeds=first.shape[1],
                n_test=len(first),
            )
        )
    return found


def _over_seeds(metric: Metric, outputs: Outputs) -> Statistic:
    """Mean of a metric over the seeds."""
    return lambda weights: np.mean(
        [metric(outputs[:, s], weights) for s in range(outputs.shape[1])], axis=0
    )


def _p(
    truth: TrueTargets, name: str, metric: Metric, model: str, first: Outputs, second: Outputs
) -> tuple[float, str]:
    if not has_scores(model) and truth.one_case_each:
        right = [o[:, 0].argmax(1) == truth.values for o in (first, second)]
        return mcnemar_p(*right), "McNemar, exact"
    once = np.ones((1, len(first)))
    if name in RANKED:
        first, second = _ranks(first, truth.fold), _ranks(second, truth.fold)
    p = permutation_p(
        lambda o: float(_over_seeds(metric, o)(once)[0]),
        first,
        second,
        SWAPS,
        subjects=truth.subjects,
    )
    return p, "paired permutation"


def _ranks(outputs: Outputs, fold: Integer[np.ndarray, " n"]) -> Outputs:
    """Within each model: what is swapped between two encoders must be on one scale."""
    ranks = np.empty(outputs.shape)
    for number in np.unique(fold):
        ranks[fold == number] = rankdata(outputs[fold == number], axis=0)
    return ranks


def _delong(truth: TrueTargets, metric: str, first: Outputs, second: Outputs) -> float:
    one_model = len(set(truth.fold.tolist())) == 1
    if metric != "AUC" or first.shape[-1] != 2 or not one_model or not truth.one_case_each:
        return float("nan")
    scores: list[Float[np.ndarray, " n"]] = [o[..., 1].mean(1) for o in (first, second)]
    return delong(truth.values.astype(int), *scores).p


def _adjusted(found: Sequence[Comparison]) -> list[Comparison]:
    families: dict[tuple[str, str, str], list[int]] = {}
    for n, c in enumerate(found):
        families.setdefault((c.task, c.model, c.metric), []).append(n)
    adjusted = list(found)
    for members in families.values():
        p = [found[n].p for n in members]
        for n, h, b in zip(members, holm(p), benjamini_hochberg(p), strict=True):
            adjusted[n] = replace(found[n], holm=float(h), benjamini_hochberg=float(b))
    return adjusted


def markdown(comparisons: Sequence[Comparison]) -> str:
    """A line per comparison."""
    head = [
        "model",
        "metric",
        "ratio",
        "first",
        "second",
        "second - first",
        "95 %",
        "p",
        "Holm",
        "BH",
        "test",
    ]
    return markdown_table(head, (_cells(c) for c in comparisons))


def _cells(c: Comparison) -> list[str]:
    sides = [
        f"{c.first} {c.first_value:.3g}",
        f"{c.second} {c.second_value:.3g}",
        f"{c.difference:+.3g}",
    ]
    p = [f"{v:.3g}" for v in (c.p, c.holm, c.benjamini_hochberg)]
    return [c.model, c.metric, f"{c.ratio:g}", *sides, f"{c.low:.3g} to {c.high:.3g}", *p, c.test]
