"""Encoders compared on the same tested cases: paired tests, adjusted for their number."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, Shaped
from scipy.stats import rankdata

from nnunet_fm.evaluation.classification import delong
from nnunet_fm.evaluation.intervals import Weights, difference
from nnunet_fm.evaluation.paired_tests import (
    adjust_by_family,
    benjamini_hochberg,
    holm,
    mcnemar_p,
    permutation_p,
)
from nnunet_fm.heads.figures import draw_runs
from nnunet_fm.heads.metrics import MetricFunction, TrueTargets
from nnunet_fm.heads.models import has_scores
from nnunet_fm.heads.results import few_subjects_note
from nnunet_fm.heads.saved_runs import FinishedRun, Predictions
from nnunet_fm.internal.atomic_files import write_csv, write_text
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.markdown import markdown_table
from nnunet_fm.internal.result_sets import replaced_together

RESAMPLES = 2000
SWAPS = 2000
RANK_METRICS = ("AUC", "C-index")  # depend on the order of the outputs only
COLUMNS = (
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
)
Outputs = Shaped[np.ndarray, "n s ..."]  # of each case, for each seed


@dataclass(frozen=True)
class EncoderComparison:
    """Two encoders compared by one model, ratio and metric.

    Attributes:
        task: name of the task.
        model: name of the model.
        ratio: share of the training subjects.
        metric: name of the metric.
        first: first encoder.
        second: second encoder.
        first_value: metric of the first encoder, mean over the seeds.
        second_value: metric of the second encoder, mean over the seeds.
        difference: second minus first.
        low: lower 95 % limit of the difference over the tested cases.
        high: upper limit.
        p: two-sided p of swaps of each subject's outputs (all seeds together), or of McNemar's test
            (kNN, first seed, one case per subject).
        test: name of the test.
        holm: p adjusted after Holm within the family: all ratios and pairs of encoders of one task,
            model and metric.
        benjamini_hochberg: p adjusted after Benjamini and Hochberg within the family.
        p_delong: DeLong's p for the outputs averaged over the seeds; only for the AUC of two
            classes with one split and one case per subject, NaN otherwise.
        seeds: number of seeds.
        n_test: number of tested cases.
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


@dataclass(frozen=True)
class _Pair:
    """The outputs of two encoders for the same cases, by one model at one ratio."""

    task: str
    model: str
    ratio: float
    names: tuple[str, str]
    truth: TrueTargets
    first: Outputs
    second: Outputs


def compare(runs: Sequence[FinishedRun]) -> list[EncoderComparison]:
    """Compare all pairs of encoders at every ratio that all runs have.

    Args:
        runs: runs of one task, one per encoder.

    Raises:
        ValueError: fewer than two runs, or runs with different tasks, protocols or tested cases.
        FileNotFoundError: a ratio and seed is not finished.
    """
    _check_same_task(runs)
    settings = [{(result.ratio, result.seed) for result in run.results} for run in runs]
    shared = set.intersection(*settings)
    if not shared:
        raise InputError("the runs have no ratio and seed in common")
    comparisons = []
    for ratio in sorted({ratio for ratio, _ in shared}):
        seeds = sorted(seed for r, seed in shared if r == ratio)
        predictions = [[run.predictions(ratio, seed) for seed in seeds] for run in runs]
        for a, b in combinations(range(len(runs)), 2):
            names = (runs[a].about["encoder"], runs[b].about["encoder"])
            for model in predictions[a][0]:
                in_all = all(model in p for p in (*predictions[a], *predictions[b]))
                if model != "trivial" and in_all:
                    first = [p[model] for p in predictions[a]]
                    second = [p[model] for p in predictions[b]]
                    pair = _pair(runs[a].about["task"], model, ratio, names, first, second)
                    comparisons += _compare_pair(pair)
    return _adjust(comparisons)


def write_comparison(runs: Sequence[FinishedRun], out: Path) -> list[EncoderComparison]:
    """Compare runs and write `comparison.csv`, `comparison.md` and figures.

    Args:
        runs: runs of one task, one per encoder, see `read_run`.
        out: folder to write to.

    Raises:
        ValueError: see `compare`.
        FileNotFoundError: see `compare`.
    """
    comparisons = compare(runs)
    with replaced_together(out, "comparison") as folder:
        write_csv(comparisons, folder / "comparison.csv")
        write_text(folder / "comparison.md", comparison_table(comparisons, runs) + "\n")
        draw_runs(runs, folder)
    return comparisons


def _check_same_task(runs: Sequence[FinishedRun]) -> None:
    if len(runs) < 2:
        raise InputError(f"{len(runs)} run given; a comparison needs 2 or more")
    for key in ("task", "protocol", "tested", "classes"):
        if len({str(run.about[key]) for run in runs}) > 1:
            values = ", ".join(str(run.about[key]) for run in runs)
            raise InputError(f"the runs differ in {key}: {values}; allowed: one")


def _pair(
    task: str,
    model: str,
    ratio: float,
    names: tuple[str, str],
    first: Sequence[Predictions],
    second: Sequence[Predictions],
) -> _Pair:
    """Stack the predictions of all seeds."""
    if len({p.cases for p in (*first, *second)}) > 1:
        raise InputError(
            f"{names[0]} and {names[1]} were tested on different cases; pairs need the same"
        )
    if not all(p.truth.same_as(first[0].truth) for p in (*first, *second)):
        raise InputError(
            f"{names[0]} and {names[1]} were tested on different targets, events, subjects or "
            "folds of the same cases; rerun both with the same table, target and event"
        )
    outputs = [np.stack([p.output for p in side], axis=1) for side in (first, second)]
    return _Pair(task, model, ratio, names, first[0].truth, outputs[0], outputs[1])


def _compare_pair(pair: _Pair) -> list[EncoderComparison]:
    """Compare by every metric; p-values are not adjusted yet."""
    bootstrap = pair.truth.bootstrap(RESAMPLES)
    comparisons = []
    for name, metric in pair.truth.metrics(ranks=has_scores(pair.model)).items():
        first = partial(_mean_over_seeds, metric, pair.first)
        second = partial(_mean_over_seeds, metric, pair.second)
        interval = bootstrap.interval(difference(first, second))
        p, test = _test(pair, name, metric)
        comparison = EncoderComparison(
            task=pair.task,
            model=pair.model,
            ratio=pair.ratio,
            metric=name,
            first=pair.names[0],
            second=pair.names[1],
            first_value=float(first(bootstrap.unit_weights)[0]),
            second_value=float(second(bootstrap.unit_weights)[0]),
            difference=interval.value,
            low=interval.low,
            high=interval.high,
            p=p,
            test=test,
            holm=p,
            benjamini_hochberg=p,
            p_delong=_delong_p(pair, name),
            seeds=pair.first.shape[1],
            n_test=len(pair.first),
        )
        comparisons.append(comparison)
    return comparisons


def _mean_over_seeds(
    metric: MetricFunction, outputs: Outputs, weights: Weights
) -> Float[np.ndarray, " b"]:
    values = [metric(outputs[:, seed], weights) for seed in range(outputs.shape[1])]
    return np.mean(values, axis=0)


def _test(pair: _Pair, name: str, metric: MetricFunction) -> tuple[float, str]:
    """Return the p and the name of the test that fits the model."""
    truth = pair.truth
    if not has_scores(pair.model) and truth.one_case_each:
        first_right = pair.first[:, 0].argmax(1) == truth.values
        second_right = pair.second[:, 0].argmax(1) == truth.values
        return mcnemar_p(first_right, second_right), "McNemar, exact"
    first = pair.first
    second = pair.second
    if name in RANK_METRICS:
        first = _ranks(first, truth.fold)
        second = _ranks(second, truth.fold)
    unit_weights = np.ones((1, len(first)))

    def statistic(outputs: Outputs) -> float:
        return float(_mean_over_seeds(metric, outputs, unit_weights)[0])

    p = permutation_p(statistic, first, second, SWAPS, subjects=truth.subjects)
    return p, "paired permutation"


def _ranks(outputs: Outputs, fold: Integer[np.ndarray, " n"]) -> Outputs:
    """Rank the outputs of each model: swapped outputs of two encoders need one scale."""
    ranks = np.empty(outputs.shape)
    for number in np.unique(fold):
        ranks[fold == number] = rankdata(outputs[fold == number], axis=0)
    return ranks


def _delong_p(pair: _Pair, metric: str) -> float:
    one_split = len(set(pair.truth.fold.tolist())) == 1
    two_classes = pair.first.shape[-1] == 2
    if metric != "AUC" or not two_classes or not one_split or not pair.truth.one_case_each:
        return float("nan")
    first = pair.first[..., 1].mean(1)
    second = pair.second[..., 1].mean(1)
    return delong(pair.truth.values.astype(int), first, second).p


def _adjust(comparisons: Sequence[EncoderComparison]) -> list[EncoderComparison]:
    p = [c.p for c in comparisons]
    families = [(c.task, c.model, c.metric) for c in comparisons]
    holm_p = adjust_by_family(p, families, holm)
    bh_p = adjust_by_family(p, families, benjamini_hochberg)
    return [
        replace(c, holm=h, benjamini_hochberg=b)
        for c, h, b in zip(comparisons, holm_p, bh_p, strict=True)
    ]


def count_subjects(runs: Sequence[FinishedRun]) -> int:
    """Return the number of tested subjects of runs on the same cases."""
    first = runs[0].results[0]
    predictions = runs[0].predictions(first.ratio, first.seed)
    return next(iter(predictions.values())).truth.n_subjects


def comparison_table(
    comparisons: Sequence[EncoderComparison], runs: Sequence[FinishedRun] = ()
) -> str:
    """Format one line per comparison, with notes on few subjects and on leakage that was allowed.

    Args:
        comparisons: see `compare`.
        runs: what was compared; without them, subjects are taken to be as many as cases.
    """
    table = markdown_table(COLUMNS, [_row(c) for c in comparisons])
    table += few_subjects_note([count_subjects(runs)] if runs else [c.n_test for c in comparisons])
    leakage = {run.about["encoder"]: run.about.get("leakage") for run in runs}
    notes = [f"\n\nLeakage allowed, {name}: {text}" for name, text in leakage.items() if text]
    return table + "".join(notes)


def _row(c: EncoderComparison) -> list[str]:
    return [
        c.model,
        c.metric,
        f"{c.ratio:g}",
        f"{c.first} {c.first_value:.3g}",
        f"{c.second} {c.second_value:.3g}",
        f"{c.difference:+.3g}",
        f"{c.low:.3g} to {c.high:.3g}",
        f"{c.p:.3g}",
        f"{c.holm:.3g}",
        f"{c.benjamini_hochberg:.3g}",
        c.test,
    ]
