"""A task over ratios and seeds: subsets, training, predictions, metrics with intervals; resumable."""

import csv
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
from nnunet_fm.evaluation.intervals import Bootstrap
from nnunet_fm.heads.metrics import Metric, Output, TrueTargets
from nnunet_fm.heads.models import fit, has_scores, models_of
from nnunet_fm.heads.results import LOGRANK, Result, markdown
from nnunet_fm.heads.risk_groups import risk_groups
from nnunet_fm.heads.splits import Cases, Split, fold_numbers, splits_of, subset, tested_by
from nnunet_fm.heads.task_data import Job
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.files import replaced_atomically, write_csv, write_text

PREDICTIONS, RESULTS, ABOUT = "predictions", "results", "run.json"
RESAMPLES = 1000
_NAN = float("nan")


@dataclass(frozen=True)
class Prediction:
    """One model's outputs for all tested cases.

    Attributes:
        output: probabilities, values or risks.
        threshold: binary classification with `youden_folds`: of the probability of class 1; NaN
            elsewhere.
        high: survival: above the median risk of the training cases.
    """

    output: Output
    threshold: Float[np.ndarray, " n"]
    high: Bool[np.ndarray, " n"]


def run_job(job: Job, out: Path) -> tuple[list[Result], Path]:
    """Every ratio and seed; what an earlier call finished is read, not computed.

    Args:
        job: data and task.
        out: folder; a run lies in `out/TASK/ENCODER/IDENTITY`, its markers are written last.

    Returns:
        All results, and the run's folder.

    Raises:
        ValueError: a training side without a class or without an event.
    """
    splits, tested = splits_of(job)
    folder = out / job.name / job.encoder / job.identity()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / ABOUT, json.dumps(_about(job, tested)))
    results = []
    for ratio in tqdm(job.task.ratios, desc=f"{job.name}, {job.encoder}", unit="ratio"):
        for seed in range(job.task.seeds):
            marker = folder / f"ratio_{ratio:g}_seed_{seed}.json"
            if not marker.is_file():
                _one(job, splits, tested, ratio, seed, marker)
            results += [Result(**r) for r in json.loads(marker.read_text())]
    write_csv(results, folder / f"{RESULTS}.csv")
    (folder / f"{RESULTS}.md").write_text(markdown(results) + "\n")
    return results, folder


def _about(job: Job, tested: str) -> dict[str, Any]:
    return {
        "task": job.name,
        "encoder": job.encoder,
        "kind": job.task.kind,
        "classes": job.targets.classes,
        "protocol": job.task.protocol,
        "tested": tested,
        "cases": len(job.names),
        "subjects": len(set(job.subjects)),
        "without_target": job.targets.left_out,
        "incomplete": job.incomplete,
        "leakage": job.leakage,
        "settings": job.task.model_dump(mode="json"),
    }


def _one(
    job: Job, splits: Sequence[Split], tested: str, ratio: float, seed: int, marker: Path
) -> None:
    """Train and test at one ratio and seed; the predictions first, the marker last."""
    chosen = [replace(s, train=subset(job, s.train, ratio, seed)) for s in splits]
    rows, truth = tested_by(job, chosen)
    size = round(np.mean([len(s.train) for s in chosen]))
    bootstrap = truth.bootstrap(RESAMPLES)
    results, lines = [], []
    for model in models_of(job.task, min(len(s.train) for s in chosen)):
        found = _predicted(job, model, chosen, seed)
        common = Result(
            task=job.name,
            encoder=job.encoder,
            model=model,
            ratio=ratio,
            seed=seed,
            metric="",  # this and the numbers are filled in below
            value=_NAN,
            low=_NAN,
            high=_NAN,
            interval="",
            n_train=size,
            n_test=len(rows),
            tested=tested,
            protocol=job.task.protocol,
            leakage=job.leakage,
        )
        results += _scores(truth, bootstrap, found, common)
        lines += _lines(job, rows, truth, model, found)
    predictions = str(marker.with_name(f"{PREDICTIONS}_{marker.stem}.csv"))
    with replaced_atomically(predictions) as temporary, open(temporary, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    write_text(marker, json.dumps([asdict(r) for r in results]))


def _predicted(job: Job, model: str, splits: Sequence[Split], seed: int) -> Prediction:
    outputs, thresholds, high = [], [], []
    for split in splits:
        predict = fit(model, job.task, job.x[split.train], job.targets.of(split.train), seed)
        outputs.append(predict(job.x[split.test]))
        thresholds.append(np.full(len(split.test), _threshold(job, model, split.train, seed)))
        middle = np.median(predict(job.x[split.train])) if job.task.kind == "survival" else np.nan
        high.append(
            outputs[-1] > middle if job.task.kind == "survival" else np.zeros(len(split.test), bool)
        )
    return Prediction(np.concatenate(outputs), np.concatenate(thresholds), np.concatenate(high))


def _threshold(job: Job, model: str, train: Cases, seed: int) -> float:
    """Youden's, of predictions that cross-validation among the training cases makes; NaN if none is wanted."""
    folds = job.task.youden_folds
    if not folds or len(job.targets.classes) != 2 or not has_scores(model):
        return float("nan")
    fold, scores = fold_numbers(job, train, folds), np.zeros(len(train))
    labels = job.targets.values[train].astype(int)
    for number in range(folds):
        others = train[fold != number]
        if (fold == number).any():
            if len(set(job.targets.values[others])) < 2:
                raise InputError(
                    f"{len(train)} training cases are too few for youden_folds={folds}: a class is missing"
                )
            predict = fit(model, job.task, job.x[others], job.targets.of(others), seed)
            scores[fold == number] = predict(job.x[train[fold == number]])[:, 1]
    return youden_threshold(labels, scores)


def _scores(
    truth: TrueTargets, bootstrap: Bootstrap, found: Prediction, common: Result
) -> list[Result]:
    metrics = truth.metrics(ranks=has_scores(common.model))
    if np.isfinite(found.threshold).all():
        called = found.output[:, 1] >= found.threshold
        for name, positive in (("sensitivity", 1), ("specificity", 0)):
            of_class = truth.values == positive
            metrics[name] = _share(called == positive, of_class)
    results = []
    for name, metric in metrics.items():
        i = bootstrap.interval(partial(metric, found.output))
        results.append(
            replace(common, metric=name, value=i.value, low=i.low, high=i.high, interval=i.method)
        )
    return results + (_groups(truth, found, common) if truth.kind == "survival" else [])


def _share(right: Bool[np.ndarray, " n"], among: Bool[np.ndarray, " n"]) -> Metric:
    return lambda _, weights: weights @ (right & among) / (weights @ among)


def _groups(truth: TrueTargets, found: Prediction, common: Result) -> list[Result]:
    if common.model == "trivial":  # one risk for all
        return []
    groups = risk_groups(truth.values, truth.events, found.high)
    of_group = dict(zip(groups.medians, groups.counts, strict=True))
    return [
        replace(common, metric=LOGRANK, value=groups.p),
        *(
            replace(
                common,
                metric=f"median survival, {name} risk",
                value=m,
                low=a,
                high=b,
                n_test=of_group[name],
            )
            for name, (m, a, b) in groups.medians.items()
        ),
    ]


def _lines(
    job: Job, rows: Cases, truth: TrueTargets, model: str, found: Prediction
) -> list[dict[str, Any]]:
    """Of the table of predictions: a case and model each."""
    outputs = job.targets.classes or ("prediction",)
    lines = []
    for n, row in enumerate(rows):
        line = {
            "case": job.names[row],
            "subject": job.subjects[row],
            "model": model,
            "fold": int(truth.fold[n]),
        }
        line["truth"] = truth.values[n]
        if job.task.kind == "survival":
            line |= {"event": int(truth.events[n]), "high_risk": int(found.high[n])}
        lines.append(
            line | dict(zip(outputs, np.atleast_1d(found.output[n]).tolist(), strict=True))
        )
    return lines
