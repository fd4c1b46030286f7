"""Heads trained on clean volumes, tested on perturbed ones (BrainDINO, section 4.4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_fm.evaluation.intervals import Statistic
from nnunet_fm.features import FeatureCache, FeatureRecipe, Table
from nnunet_fm.heads.fitting import KNN, fit, models_of
from nnunet_fm.heads.job import Job, make_job
from nnunet_fm.heads.scores import Output, statistic, value_of
from nnunet_fm.heads.splits import splits_of
from nnunet_fm.heads.task import Task
from nnunet_fm.mri.perturbations import NONE

RESAMPLES = 1000


@dataclass(frozen=True)
class Robustness:
    """One metric under one perturbation.

    Attributes:
        task, encoder, model, seed: as in `Result`.
        family, severity: of the perturbation; the clean value of a family is at its severity "none".
        metric, value, low, high: with 95 % BCa limits over the tested cases.
        change, change_low, change_high: value minus that of the same model on the clean volumes.
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
        raise ValueError(
            f"the cache has no perturbed features of {recipe.name}; type: nnunet-fm features extract {table.file} "
            f"--encoder {recipe.name} --perturb gibbs=0.2 --cache {cache.folder}"
        )
    jobs = [(r, make_job(name, task, table, cache, r)) for r in perturbed]
    found = []
    for seed in range(task.seeds):
        for model in models_of(task, min(len(s.train) for s in splits_of(clean)[0])):
            if model != "trivial":
                found += _of_model(clean, jobs, model, seed)
    return found


def _of_model(clean: Job, jobs: Sequence[tuple[FeatureRecipe, Job]], model: str, seed: int) -> list[Robustness]:
    splits, _ = splits_of(clean)
    rows = np.concatenate([s.test for s in splits])
    fold = np.concatenate([np.full(len(s.test), n) for n, s in enumerate(splits)])
    truth = clean.tested(rows, fold)
    models = [fit(model, clean.task, clean.x[s.train], clean.targets.of(s.train), seed) for s in splits]

    def outputs(job: Job) -> Output:
        return np.concatenate([predict(job.x[s.test]) for predict, s in zip(models, splits, strict=True)])

    bootstrap, before = truth.bootstrap(RESAMPLES), outputs(clean)
    settings = [(r.perturbation or {}, outputs(job)) for r, job in jobs]
    families = sorted({s["family"] for s, _ in settings})
    settings += [({"family": f, "severity": NONE[f]}, before) for f in families]
    found = []
    for metric, function in truth.metrics(ranks=not model.startswith(KNN)).items():
        for setting, after in sorted(settings, key=lambda s: (s[0]["family"], s[0]["severity"])):
            interval = bootstrap.interval(statistic(function, after))
            difference = bootstrap.interval(_difference(statistic(function, before), statistic(function, after)))
            value = value_of(function, after)
            found.append(
                Robustness(
                    task=clean.name,
                    encoder=clean.encoder,
                    model=model,
                    seed=seed,
                    family=setting["family"],
                    severity=setting["severity"],
                    metric=metric,
                    value=value,
                    low=interval.low,
                    high=interval.high,
                    change=value - value_of(function, before),
                    change_low=difference.low,
                    change_high=difference.high,
                    n_test=len(rows),
                )
            )
    return found


def _difference(before: Statistic, after: Statistic) -> Statistic:
    return lambda weights: after(weights) - before(weights)


def markdown(found: Sequence[Robustness]) -> str:
    """A line per model, metric and perturbation: mean over seeds of the value, its limits, and of the change."""
    head = ["model", "metric", "perturbation", "value", "95 %", "change", "95 %"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    groups: dict[tuple[str, str, str, float], list[Robustness]] = {}
    keys = ("value", "low", "high", "change", "change_low", "change_high")
    for r in found:
        groups.setdefault((r.model, r.metric, r.family, r.severity), []).append(r)
    for (model, metric, family, severity), g in groups.items():
        mean = {k: np.mean([getattr(r, k) for r in g]) for k in keys}
        value, change = (f"{mean[k]:+.3g}" if k == "change" else f"{mean[k]:.3g}" for k in ("value", "change"))
        limits, change_limits = (f"{mean[f'{k}low']:.3g} to {mean[f'{k}high']:.3g}" for k in ("", "change_"))
        cells = (model, metric, f"{family} {severity:g}", value, limits, change, change_limits)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(found: Sequence[Robustness], stem: Path) -> list[Path]:
    """The first metric over each family's severities, a line per model."""
    from matplotlib.figure import Figure

    from nnunet_fm.heads.figures import COLOURS, MARKS, saved

    metric, families = found[0].metric, sorted({r.family for r in found})
    figure = Figure(figsize=(3.6 * len(families), 3.4), layout="constrained")
    panels = figure.subplots(1, len(families), squeeze=False, sharey=True)[0]
    models = [m for m in dict.fromkeys(r.model for r in found) if not m.startswith(KNN)]
    for axes, family in zip(panels, families, strict=True):
        for n, model in enumerate(models):
            chosen = [r for r in found if (r.family, r.model, r.metric) == (family, model, metric)]
            severities = sorted({r.severity for r in chosen})
            mean, low, high = (
                np.array([np.mean([getattr(r, k) for r in chosen if r.severity == s]) for s in severities])
                for k in ("value", "low", "high")
            )
            axes.plot(severities, mean, color=COLOURS[n], marker=MARKS[n], label=model)
            axes.fill_between(severities, low, high, color=COLOURS[n], alpha=0.12, linewidth=0)
        axes.set(xlabel=family, title="")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(metric)
    panels[0].legend(frameon=False, fontsize=8)
    return saved(figure, stem)
