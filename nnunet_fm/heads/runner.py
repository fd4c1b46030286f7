"""Run a task over ratios and seeds: subsets, training, predictions, metrics; resumable."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from tqdm import tqdm

from nnunet_fm.evaluation.classification import youden_threshold
from nnunet_fm.evaluation.intervals import Bootstrap, Weights
from nnunet_fm.heads.figures import draw_runs
from nnunet_fm.heads.metrics import MetricFunction, Output, TrueTargets
from nnunet_fm.heads.models import has_scores
from nnunet_fm.heads.results import LOGRANK, Result, results_table
from nnunet_fm.heads.risk_groups import risk_groups
from nnunet_fm.heads.saved_runs import (
    ABOUT,
    PREDICTIONS,
    RESULTS,
    FinishedRun,
    class_columns,
    read_run,
    run_folder,
    setting_name,
)
from nnunet_fm.heads.splits import Cases, Split, inner_folds, make_splits, subset, tested_cases
from nnunet_fm.heads.task_data import TaskData
from nnunet_fm.internal.atomic_files import write_csv, write_text
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.json_files import read_list
from nnunet_fm.internal.locks import is_writable, one_writer
from nnunet_fm.internal.result_sets import replaced_together
from nnunet_fm.internal.threads import torch_threads

RESAMPLES = 1000
NAN = float("nan")


@dataclass(frozen=True)
class Prediction:
    """Outputs of one model for all tested cases.

    Attributes:
        output: probabilities, values or risks.
        threshold: binary classification with `youden_folds`: threshold of the probability of class
            1, for each case that of its fold; NaN otherwise.
        high: survival: whether the risk is above the median risk of the training cases.
    """

    output: Output
    threshold: Float[np.ndarray, " n"]
    high: Bool[np.ndarray, " n"]


@dataclass(frozen=True)
class Score:
    """The value of one metric, its limits, and the number of cases it is computed from."""

    metric: str
    value: float
    cases: int
    low: float = NAN
    high: float = NAN
    interval: str = ""


def run_task(data: TaskData, out: Path, figures: bool = True) -> FinishedRun:
    """Train and test at every ratio and seed; finished ones are read instead of computed.

    Args:
        data: the task with its cases, see `open_task`.
        out: folder of results. The run is written to `out/TASK/ENCODER/IDENTITY`.
        figures: draw the curves over the ratios and of survival into the run's folder.

    Raises:
        ValueError: a training side without a class or without an event.
        BusyError: another process writes to the run's folder.
    """
    splits, tested = make_splits(data)
    folder = run_folder(out, data)
    results = []
    predictions = []
    subjects = tested_cases(data, splits)[1].n_subjects
    with one_writer(folder), torch_threads(data.fitter.threads):
        for ratio in tqdm(data.task.ratios, desc=f"{data.name}, {data.encoder}", unit="ratio"):
            for seed in range(data.task.seeds):
                marker = folder / f"{setting_name(ratio, seed)}.json"
                if not marker.is_file() or _counts_cases(marker, subjects):
                    _run_setting(data, splits, tested, ratio, seed, marker)
                results += _finished(marker)
                predictions.append(marker.with_name(f"{PREDICTIONS}_{marker.stem}.csv"))
        run = FinishedRun(folder, _describe(data, tested), results)
        if is_writable(folder) or not (folder / f"{RESULTS}.csv").is_file():
            _write_results(run, predictions, figures)
    return read_run(folder)


def _finished(marker: Path) -> list[Result]:
    """Read the results of one ratio and seed.

    Raises:
        ValueError: the file is damaged.
    """
    remedy = "delete it, and rerun the command"
    try:
        return [Result(**result) for result in read_list(marker, remedy)]
    except TypeError as error:
        raise InputError(f"{marker} is damaged ({error}); {remedy}") from None


def _counts_cases(marker: Path, subjects: int) -> bool:
    """Whether a finished setting of an earlier version compares survival of cases, not subjects."""
    return any(r.metric == LOGRANK and r.n_test > subjects for r in _finished(marker))


def _write_results(run: FinishedRun, predictions: Sequence[Path], figures: bool) -> None:
    """Replace the tables and figures of a run together; `predictions` are written already."""
    with replaced_together(run.folder, RESULTS, predictions) as temporary:
        write_text(temporary / ABOUT, json.dumps(run.about))
        write_csv(run.results, temporary / f"{RESULTS}.csv")
        write_text(temporary / f"{RESULTS}.md", results_table(run.results) + "\n")
        if figures:
            draw_runs([run], temporary)


def _describe(data: TaskData, tested: str) -> dict[str, Any]:
    """Return the content of `run.json`."""
    encoders = {"encoders": data.encoders} if data.encoders else {}
    return {
        "task": data.name,
        "encoder": data.encoder,
        **encoders,
        "kind": data.task.kind,
        "classes": data.targets.classes,
        "protocol": data.task.protocol,
        "tested": tested,
        "cases": len(data.names),
        "subjects": len(set(data.subjects)),
        "without_target": data.targets.left_out,
        "incomplete": data.incomplete,
        "leakage": data.leakage,
        "settings": data.task.model_dump(mode="json"),
    }


def _run_setting(
    data: TaskData, splits: Sequence[Split], tested: str, ratio: float, seed: int, marker: Path
) -> None:
    """Train and test at one ratio and seed; the predictions are written first, the marker last."""
    subsets = [replace(split, train=subset(data, split.train, ratio, seed)) for split in splits]
    cases, truth = tested_cases(data, subsets)
    sizes = [len(split.train) for split in subsets]
    bootstrap = truth.bootstrap(RESAMPLES)
    results = []
    lines = []
    for model in data.fitter.names(data.task, min(sizes)):
        prediction = _predict(data, model, subsets, seed)
        for score in _scores(data, truth, bootstrap, prediction, model):
            result = Result(
                task=data.name,
                encoder=data.encoder,
                model=model,
                ratio=ratio,
                seed=seed,
                metric=score.metric,
                value=score.value,
                low=score.low,
                high=score.high,
                interval=score.interval,
                n_train=round(np.mean(sizes)),
                n_test=score.cases,
                tested=tested,
                protocol=data.task.protocol,
                leakage=data.leakage,
            )
            results.append(result)
        lines += _prediction_lines(data, cases, truth, model, prediction)
    write_csv(lines, marker.with_name(f"{PREDICTIONS}_{marker.stem}.csv"))
    write_text(marker, json.dumps([asdict(result) for result in results]))


def _predict(data: TaskData, name: str, splits: Sequence[Split], seed: int) -> Prediction:
    """Fit a model on each split and predict the tested cases of all splits."""
    outputs = []
    thresholds = []
    high = []
    for split in splits:
        model = data.fit(name, split.train, seed)
        output = model.predict(data.x[split.test])
        outputs.append(output)
        threshold = _threshold(data, name, split.train, seed)
        thresholds.append(np.full(len(split.test), threshold))
        if data.task.kind == "survival":
            high.append(output > np.median(model.predict(data.x[split.train])))
        else:
            high.append(np.zeros(len(split.test), bool))
    return Prediction(np.concatenate(outputs), np.concatenate(thresholds), np.concatenate(high))


def _threshold(data: TaskData, name: str, train: Cases, seed: int) -> float:
    """Choose Youden's threshold by cross-validation among the training cases.

    Returns:
        The threshold of the probability of class 1; NaN if the task asks for none.
    """
    if not data.chooses_threshold or not has_scores(name):
        return NAN
    scores = np.full(len(data.names), NAN)
    for split in inner_folds(data, train, data.task.youden_folds):
        model = data.fit(name, split.train, seed)
        scores[split.test] = model.predict(data.x[split.test])[:, 1]
    labels = data.targets.values[train].astype(int)
    return youden_threshold(labels, scores[train])


def _scores(
    data: TaskData, truth: TrueTargets, bootstrap: Bootstrap, prediction: Prediction, model: str
) -> list[Score]:
    """Compute all metrics of one model."""
    metrics = truth.metrics(ranks=has_scores(model))
    if np.isfinite(prediction.threshold).all():
        metrics |= _threshold_metrics(truth, prediction, data.targets.classes[1])
    cases = len(truth.values)
    scores = []
    for name, metric in metrics.items():
        i = bootstrap.interval(partial(metric, prediction.output))
        scores.append(Score(name, i.value, cases, i.low, i.high, i.method))
    if truth.kind == "survival" and model != "trivial":  # the baseline has one risk for all
        scores += _risk_group_scores(truth, prediction)
    return scores


def _threshold_metrics(
    truth: TrueTargets, prediction: Prediction, label: str
) -> dict[str, MetricFunction]:
    """Return sensitivity and specificity for class 1, named by its label, at the thresholds."""
    positive = truth.values == 1
    predicted_positive = prediction.output[:, 1] >= prediction.threshold
    return {
        f"sensitivity for {label}": partial(_share, positive & predicted_positive, positive),
        f"specificity for {label}": partial(_share, ~positive & ~predicted_positive, ~positive),
    }


def _share(
    correct: Bool[np.ndarray, " n"], among: Bool[np.ndarray, " n"], _: Output, weights: Weights
) -> Float[np.ndarray, " b"]:
    return weights @ correct / (weights @ among)


def _risk_group_scores(truth: TrueTargets, prediction: Prediction) -> list[Score]:
    """Compute the log-rank p and the median survival of both risk groups."""
    groups = risk_groups(truth, prediction.high)
    scores = [Score(LOGRANK, groups.p, groups.high.count + groups.low.count)]
    for group in (groups.high, groups.low):
        median, low, high = group.median
        metric = f"median survival, {group.name} risk"
        scores.append(Score(metric, median, group.count, low, high))
    return scores


def _prediction_lines(
    data: TaskData, cases: Cases, truth: TrueTargets, model: str, prediction: Prediction
) -> list[dict[str, Any]]:
    """Return the lines of the table of predictions, one per case."""
    outputs = class_columns(data.targets.classes) or ["prediction"]
    lines = []
    for n, case in enumerate(cases):
        line = {
            "case": data.names[case],
            "subject": data.subjects[case],
            "model": model,
            "fold": int(truth.fold[n]),
            "truth": truth.values[n],
        }
        if data.task.kind == "survival":
            line["event"] = int(truth.events[n])
            line["high_risk"] = int(prediction.high[n])
        values = np.atleast_1d(prediction.output[n]).tolist()
        lines.append(line | dict(zip(outputs, values, strict=True)))
    return lines
