"""A task over ratios and seeds: subsets, training, predictions, metrics with intervals; resumable."""

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer
from tqdm import tqdm

from nnunet_fm.evaluation.classification import accuracy, macro_auc
from nnunet_fm.evaluation.intervals import bootstrap_interval
from nnunet_fm.evaluation.survival import concordance
from nnunet_fm.features import FeatureCache, Table
from nnunet_fm.files import replaced_atomically, write_csv
from nnunet_fm.heads.fitting import MODELS, fit
from nnunet_fm.heads.subsets import nested_subset
from nnunet_fm.heads.targets import Targets, read_targets
from nnunet_fm.heads.task import Task

Rows = Integer[np.ndarray, "..."]  # numbers of rows
PREDICTIONS, RESULTS = "predictions", "results"


@dataclass(frozen=True)
class Result:
    """One number: its task, encoder, model, share of the training subjects, seed, and interval over tested subjects."""

    task: str
    encoder: str
    model: str
    ratio: float
    seed: int
    metric: str
    value: float
    low: float
    high: float
    interval: str
    n_train: int
    n_test: int
    tested: str
    selection: str = "none"


@dataclass(frozen=True)
class Job:
    """Data of a task: a row per visit that has a target and features."""

    name: str
    encoder: str
    task: Task
    x: Float[np.ndarray, "n d"]
    targets: Targets
    names: list[str]
    subjects: list[str]
    splits: list[str]

    def identity(self) -> str:
        """SHA-256 of everything that results depend on."""
        digest = hashlib.sha256(self.task.model_dump_json().encode())
        for part in (self.x, self.targets.values, self.targets.events):
            digest.update(np.ascontiguousarray(part).tobytes())
        digest.update(json.dumps([self.names, self.splits]).encode())
        return digest.hexdigest()


def make_job(name: str, task: Task, table: Table, cache: FeatureCache, encoder: str | None) -> Job:
    """Bring features and targets together.

    Raises:
        FileNotFoundError, ValueError: features that are not in the cache, or see `read_targets`.
    """
    targets = read_targets(task, table.rows)
    rows = [table.rows[n] for n in targets.kept]
    known, x = cache.matrix(replace(table, rows=rows), task.layer, encoder, task.modalities)
    place = {name: n for n, name in enumerate(known)}
    there = np.array([n for n, row in enumerate(rows) if row.name in place])
    rows = [rows[n] for n in there]
    found = replace(targets.of(there), left_out=targets.left_out + len(targets.kept) - len(there))
    vectors = x[[place[row.name] for row in rows]]
    recipe = cache.recipe(encoder)
    return Job(
        name,
        f"{recipe.name}-{recipe.identity()[:8]}",
        task,
        vectors,
        found,
        [r.name for r in rows],
        [r.subject for r in rows],
        [r.split for r in rows],
    )


def run_job(job: Job, out: Path) -> tuple[list[Result], Path]:
    """Every ratio and seed; what an earlier call finished is read, not computed.

    Args:
        job: data and task.
        out: folder; a run lies in `out/TASK/ENCODER/IDENTITY`, its marker is written last.

    Returns:
        All results, and the run's folder.

    Raises:
        ValueError: a split or fold without a class, or survival without a column `split`.
    """
    folder = out / job.name / job.encoder / job.identity()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    parts, tested = _parts(job)
    results = []
    for ratio in tqdm(job.task.ratios, desc=f"{job.name}, {job.encoder}", unit="ratio"):
        for seed in range(job.task.seeds):
            marker = folder / f"ratio_{ratio:g}_seed_{seed}.json"
            if not marker.is_file():
                _one(job, parts, tested, ratio, seed, marker)
            results += [Result(**r) for r in json.loads(marker.read_text())]
    write_csv(results, folder / f"{RESULTS}.csv")
    (folder / f"{RESULTS}.md").write_text(markdown(results) + "\n")
    return results, folder


def _parts(job: Job) -> tuple[list[tuple[Rows, Rows]], str]:
    """Pairs of training and tested rows: the table's split, or folds of subjects."""
    rows = np.arange(len(job.names))
    splits = np.array(job.splits)
    if (splits == "test").any():
        train = rows[splits == "train"]
        if not len(train):
            raise ValueError("the column split has test subjects and no train; give both")
        return [(train, rows[splits == "test"])], "column split"
    if job.task.kind == "survival":
        raise ValueError("survival needs a column split: risks of several folds' models cannot be ranked together")
    fold = _folds(job)
    pairs = [(rows[fold != f], rows[fold == f]) for f in range(job.task.folds)]
    return [(a, b) for a, b in pairs if len(b)], f"{job.task.folds} folds"


def _folds(job: Job) -> Rows:
    """Fold of each row: subjects of a stratum are dealt out in the order of their hash."""
    strata = _strata(job, np.arange(len(job.subjects)))
    order = sorted(strata, key=lambda s: (str(strata[s]), hashlib.sha256(s.encode()).digest()))
    fold = {subject: place % job.task.folds for place, subject in enumerate(order)}
    return np.array([fold[s] for s in job.subjects])


def _strata(job: Job, rows: Rows) -> dict[str, object]:
    """Stratum of each subject of some rows, by the first of the subject's rows."""
    first = {job.subjects[row]: row for row in reversed(rows.tolist())}
    return dict(zip(first, job.targets.strata(np.array(list(first.values())), job.task.kind), strict=True))


def _one(job: Job, parts: Sequence[tuple[Rows, Rows]], tested: str, ratio: float, seed: int, marker: Path) -> None:
    """Train and test at one ratio and seed; the predictions first, the marker last."""
    results, lines = [], []
    subsets = [_subset(job, train, ratio, seed) for train, _ in parts]
    size, rows = round(np.mean([len(s) for s in subsets])), np.concatenate([test for _, test in parts])
    for model in MODELS:
        outputs = []
        for chosen, (_, test) in zip(subsets, parts, strict=True):
            predict = fit(model, job.task, job.x[chosen], job.targets.of(chosen), seed)
            outputs.append(predict(job.x[test]))
        output = np.concatenate(outputs)
        lines += [
            (job.names[row], model, job.targets.values[row], *np.atleast_1d(o))
            for row, o in zip(rows, output, strict=True)
        ]
        common = Result(*(job.name, job.encoder, model, ratio, seed, "", 0, 0, 0, ""), size, len(rows), tested)
        results += _metrics(job, rows, output, common)
    predictions = marker.with_name(f"{PREDICTIONS}_{marker.stem}.csv")
    with replaced_atomically(str(predictions)) as temporary, open(temporary, "w", newline="") as stream:
        writer = csv.writer(stream)
        outputs_of = job.targets.classes or ("prediction",)
        writer.writerow(("subject", "model", "truth", *outputs_of))
        writer.writerows(lines)
    with replaced_atomically(str(marker)) as temporary:
        Path(temporary).write_text(json.dumps([asdict(r) for r in results]))


def _subset(job: Job, train: Rows, ratio: float, seed: int) -> Rows:
    """Training rows of the chosen subjects."""
    strata = _strata(job, train)
    chosen = set(nested_subset(list(strata), list(strata.values()), ratio, seed))
    return np.array([row for row in train if job.subjects[row] in chosen])


def _metrics(job: Job, rows: Rows, output: Float[np.ndarray, "m ..."], common: Result) -> list[Result]:
    values, events = job.targets.values[rows], job.targets.events[rows]
    if job.task.kind == "classification":
        labels = values.astype(int)
        functions = {
            "AUC": lambda r: macro_auc(labels[r], output[r]),
            "accuracy": lambda r: accuracy(labels[r], output[r]),
        }
        strata = labels
    elif job.task.kind == "survival":
        functions = {"C-index": lambda r: concordance(values[r], events[r], output[r])}
        strata = events.astype(int)
    else:
        spread = float(np.square(values - values.mean()).sum())
        functions = {
            "MAE": lambda r: float(np.abs(output[r] - values[r]).mean()),
            "RMSE": lambda r: float(np.sqrt(np.square(output[r] - values[r]).mean())),
            "R2": lambda r: float(1 - np.square(output[r] - values[r]).mean() * len(values) / spread),
        }
        strata = None
    found = []
    for metric, function in functions.items():
        interval = bootstrap_interval(function, len(rows), strata, resamples=1000)
        number = replace(common, metric=metric, value=function(np.arange(len(rows))))
        found.append(replace(number, low=interval.low, high=interval.high, interval=interval.method))
    return found


def markdown(results: Sequence[Result]) -> str:
    """A line per model, metric and ratio: mean over seeds, and the range of the seeds."""
    lines = ["| model | metric | ratio | n train | mean of seeds | lowest | highest |", "|---|---|---|---|---|---|---|"]
    groups: dict[tuple[str, str, float], list[Result]] = {}
    for r in results:
        groups.setdefault((r.model, r.metric, r.ratio), []).append(r)
    for (model, metric, ratio), group in groups.items():
        values = [r.value for r in group]
        lines.append(
            f"| {model} | {metric} | {ratio:g} | {group[0].n_train} | "
            f"{np.mean(values):.3f} | {min(values):.3f} | {max(values):.3f} |"
        )
    return "\n".join(lines)
