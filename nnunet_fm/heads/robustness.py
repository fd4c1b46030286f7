"""Heads trained on clean volumes, tested on perturbed ones (BrainDINO, section 4.4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from nnunet_fm.data.perturbations import IDENTITY
from nnunet_fm.features import FeatureCache, FeatureRecipe, Table
from nnunet_fm.heads.metrics import Output, difference
from nnunet_fm.heads.models import fit, has_scores, models_of
from nnunet_fm.heads.splits import Split, splits_of, tested_by
from nnunet_fm.heads.task import Task
from nnunet_fm.heads.task_data import Job, make_job
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.markdown import markdown_table

RESAMPLES = 1000


@dataclass(frozen=True)
class Robustness:
    """One metric under one perturbation.

    Attributes:
        task, encoder, model, seed: as in `Result`.
        family, severity: of the perturbation; the clean value of a family is at its severity
        "none". metric, value, low, high: with 95 % BCa limits over the tested cases. change,
        change_low, change_high: value minus that of the same model on the clean volumes.
        n_test: cases.
    """

    task: str
    encoder: str
    model: str
    seed: int
    family: str
    severity: float
    metric: str
    value: float
    low: float
    high: float
    change: float
    change_low: float
    change_high: float
    n_test: int


def robustness(
    name: str, task: Task, table: Table, cache: FeatureCache, encoder: str | None = None
) -> list[Robustness]:
    """Train on the clean training cases, test on the tested ones, clean and under everything that the cache has.

    Args:
        name: of the task.
        task: its `ratios` have no part; every seed is another head.
        table: as it was given to the extractions.
        cache: with clean and perturbed features (`features extract --perturb`).
        encoder: which, where the cache holds several.

    Raises:
        FileNotFoundError, ValueError: no perturbed features, or as `make_job` and `splits_of`.
    """
    clean = make_job(name, task, table, cache, encoder)
    recipe = cache.recipe(encoder)
    perturbed = cache.perturbed(recipe)
    if not perturbed:
        raise InputError(
            f"the cache has no perturbed features of {recipe.name}; type: nnunet-fm features extract {table.file} "
            f"--encoder {recipe.name} --perturb gibbs=0.2 --cache {cache.folder}"
        )
    jobs = [(r, make_job(name, task, table, cache, r)) for r in perturbed]
    splits, _ = splits_of(clean)
    models = [m for m in models_of(task, min(len(s.train) for s in splits)) if m != "trivial"]
    return [
        r
        for seed in range(task.seeds)
        for m in models
        for r in _of_model(clean, splits, jobs, m, seed)
    ]


def _of_model(
    clean: Job,
    splits: Sequence[Split],
    jobs: Sequence[tuple[FeatureRecipe, Job]],
    model: str,
    seed: int,
) -> list[Robustness]:
    _, truth = tested_by(clean, splits)
    models = [
        fit(model, clean.task, clean.x[s.train], clean.targets.of(s.train), seed) for s in splits
    ]

    def outputs(job: Job) -> Output:
        return np.concatenate(
            [predict(job.x[s.test]) for predict, s in zip(models, splits, strict=True)]
        )

    bootstrap, before = truth.bootstrap(RESAMPLES), outputs(clean)
    settings = [(r.perturbation or {}, outputs(job)) for r, job in jobs]
    families = sorted({s["family"] for s, _ in settings})
    settings += [({"family": f, "severity": IDENTITY[f]}, before) for f in families]
    found = []
    for metric, function in truth.metrics(ranks=has_scores(model)).items():
        for setting, after in sorted(settings, key=lambda s: (s[0]["family"], s[0]["severity"])):
            interval = bootstrap.interval(partial(function, after))
            change = bootstrap.interval(
                difference(partial(function, before), partial(function, after))
            )
            found.append(
                Robustness(
                    task=clean.name,
                    encoder=clean.encoder,
                    model=model,
                    seed=seed,
                    family=setting["family"],
                    severity=setting["severity"],
                    metric=metric,
                    value=interval.value,
                    low=interval.low,
                    high=interval.high,
                    change=change.value,
                    change_low=change.low,
                    change_high=change.high,
                    n_test=len(before),
                )
            )
    return found


def markdown(found: Sequence[Robustness]) -> str:
    """A line per model, metric and perturbation: mean over seeds of the value, its limits, and of the change."""
    head = ["model", "metric", "perturbation", "value", "95 %", "change", "95 %"]
    rows = []
    groups: dict[tuple[str, str, str, float], list[Robustness]] = {}
    keys = ("value", "low", "high", "change", "change_low", "change_high")
    for r in found:
        groups.setdefault((r.model, r.metric, r.family, r.severity), []).append(r)
    for (model, metric, family, severity), g in groups.items():
        mean = {k: np.mean([getattr(r, k) for r in g]) for k in keys}
        value, change = (
            f"{mean[k]:+.3g}" if k == "change" else f"{mean[k]:.3g}" for k in ("value", "change")
        )
        limits, change_limits = (
            f"{mean[f'{k}low']:.3g} to {mean[f'{k}high']:.3g}" for k in ("", "change_")
        )
        rows.append((model, metric, f"{family} {severity:g}", value, limits, change, change_limits))
    return markdown_table(head, rows)
