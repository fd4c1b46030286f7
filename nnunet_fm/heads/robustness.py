"""Heads trained on clean volumes and tested on perturbed ones (BrainDINO, section 4.4)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from nnunet_fm.data.perturbations import IDENTITY
from nnunet_fm.features.sources import extract_command
from nnunet_fm.heads.figures import draw_robustness
from nnunet_fm.heads.metrics import Output
from nnunet_fm.heads.models import Model, fit, has_scores, model_names
from nnunet_fm.heads.results import PerturbedResult, few_subjects_note
from nnunet_fm.heads.splits import Split, make_splits, tested_cases
from nnunet_fm.heads.task_data import TaskData, TaskInputs
from nnunet_fm.internal.atomic_files import write_csv, write_text
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.markdown import markdown_table
from nnunet_fm.internal.result_sets import replaced_together
from nnunet_fm.internal.threads import torch_threads

RESAMPLES = 1000
COLUMNS = ("model", "metric", "perturbation", "value", "95 %", "change", "95 %")


@dataclass(frozen=True)
class _Setting:
    """A perturbation and the features of the perturbed volumes; those of the clean ones too."""

    family: str
    severity: float
    data: TaskData


def measure_robustness(inputs: TaskInputs, encoder: str | None = None) -> list[PerturbedResult]:
    """Train on clean training cases; test on clean cases and under every cached perturbation.

    Args:
        inputs: the task and a cache with clean and perturbed features (`features extract
            --perturb`). The ratios of the task are unused; every seed is another head.
        encoder: name or hash of the encoder, if the cache holds several.

    Raises:
        FileNotFoundError: features are missing.
        ValueError: no perturbed features; or see `TaskInputs.collect` and `make_splits`.
    """
    clean = inputs.collect(encoder)
    settings = _settings(inputs, clean, encoder)
    splits, _ = make_splits(clean)
    names = model_names(clean.task, min(len(split.train) for split in splits))
    results = []
    with torch_threads(1):  # the products are small, more threads are slower
        for seed in range(clean.task.seeds):
            for name in names:
                if name != "trivial":
                    results += _measure_model(clean, splits, settings, name, seed)
    return results


def write_robustness(
    inputs: TaskInputs, out: Path, encoder: str | None = None
) -> list[PerturbedResult]:
    """Measure the robustness and write `robustness.csv`, `robustness.md` and a figure.

    Args:
        inputs: see `measure_robustness`.
        out: folder to write to.
        encoder: name or hash of the encoder, if the cache holds several.
    """
    results = measure_robustness(inputs, encoder)
    with replaced_together(out, "robustness") as folder:
        write_csv(results, folder / "robustness.csv")
        write_text(folder / "robustness.md", robustness_table(results, inputs.leakage) + "\n")
        draw_robustness(results, folder / "robustness")
    return results


def _settings(inputs: TaskInputs, clean: TaskData, encoder: str | None) -> list[_Setting]:
    """Collect the features of every perturbation, sorted by family and severity."""
    recipe = inputs.cache.recipe(encoder)
    recipes = inputs.cache.perturbed(recipe)
    if not recipes:
        columns = inputs.table.select_modalities(inputs.task.modalities)
        command = extract_command(
            inputs.cache.folder, inputs.table, recipe, columns, perturb="gibbs=0.2"
        )
        raise InputError(f"the cache has no perturbed features of {recipe.name}; type: {command}")
    settings = []
    for perturbed in recipes:
        perturbation = perturbed.perturbation or {}
        data = inputs.collect(perturbed)
        settings.append(_Setting(perturbation["family"], perturbation["severity"], data))
    for family in sorted({setting.family for setting in settings}):
        settings.append(_Setting(family, IDENTITY[family], clean))
    return sorted(settings, key=lambda setting: (setting.family, setting.severity))


def _measure_model(
    clean: TaskData, splits: Sequence[Split], settings: Sequence[_Setting], name: str, seed: int
) -> list[PerturbedResult]:
    """Fit a model on the clean cases of each split, and test it in every setting."""
    _, truth = tested_cases(clean, splits)
    models = [
        fit(name, clean.task, clean.x[split.train], clean.targets.of(split.train), seed)
        for split in splits
    ]
    bootstrap = truth.bootstrap(RESAMPLES)
    before = _predict(models, splits, clean)
    outputs = [_predict(models, splits, setting.data) for setting in settings]
    results = []
    for metric, function in truth.metrics(ranks=has_scores(name)).items():
        for setting, after in zip(settings, outputs, strict=True):
            change = bootstrap.change(partial(function, before), partial(function, after))
            result = PerturbedResult(
                task=clean.name,
                encoder=clean.encoder,
                model=name,
                seed=seed,
                family=setting.family,
                severity=setting.severity,
                metric=metric,
                n_test=len(before),
                n_subjects=truth.n_subjects,
                **asdict(change),
            )
            results.append(result)
    return results


def _predict(models: Sequence[Model], splits: Sequence[Split], data: TaskData) -> Output:
    outputs = []
    for model, split in zip(models, splits, strict=True):
        outputs.append(model.predict(data.x[split.test]))
    return np.concatenate(outputs)


def robustness_table(results: Sequence[PerturbedResult], leakage: str = "") -> str:
    """Format one line per model, metric and perturbation: means over the seeds.

    Args:
        results: results of any number of models and perturbations.
        leakage: description of leakage that was allowed.
    """
    groups: dict[tuple[str, str, str, float], list[PerturbedResult]] = {}
    for r in results:
        groups.setdefault((r.model, r.metric, r.family, r.severity), []).append(r)
    table = markdown_table(COLUMNS, [_row(group) for group in groups.values()])
    table += few_subjects_note(r.n_subjects for r in results)
    return f"{table}\n\nLeakage allowed: {leakage}" if leakage else table


def _row(group: Sequence[PerturbedResult]) -> list[str]:
    first = group[0]
    low = np.mean([r.low for r in group])
    high = np.mean([r.high for r in group])
    change_low = np.mean([r.change_low for r in group])
    change_high = np.mean([r.change_high for r in group])
    return [
        first.model,
        first.metric,
        f"{first.family} {first.severity:g}",
        f"{np.mean([r.value for r in group]):.3g}",
        f"{low:.3g} to {high:.3g}",
        f"{np.mean([r.change for r in group]):+.3g}",
        f"{change_low:.3g} to {change_high:.3g}",
    ]
