"""Tables, features and tasks for the tests of heads; the effect of each feature is known."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_fm.features import FeatureCache, FeatureRecipe, read_table
from nnunet_fm.heads.results import Result
from nnunet_fm.heads.runner import run_task
from nnunet_fm.heads.saved_runs import FinishedRun
from nnunet_fm.heads.task import Task, read_task
from nnunet_fm.heads.task_data import TaskData, TaskInputs

RECIPE = FeatureRecipe(
    "vit", "ab" * 32, "dinov3_test16", {}, (1, 3), "bfloat16", {"strip": "none", "shape": [4, 8, 8]}
)
WIDTH = 6
QUICK = {"steps": 200, "learning_rate": 1e-2, "hidden": 32}
COMPARED = (
    "target=label",
    "ratios=[0.5,1.0]",
    "seeds=2",
    "models=[linear,knn,trivial]",
    "neighbours=[5]",
)


def feature_table(
    folder: Path, subjects: int = 60, split: bool = True
) -> tuple[Path, FeatureCache]:
    """Write a table and its features.

    Label, number and time follow the first feature; `noise` follows nothing.
    """
    rng = np.random.default_rng(0)
    rows: list[dict[str, str]] = []
    vectors = []
    for number in range(subjects):
        vector = rng.standard_normal(WIDTH).astype(np.float32)
        vectors.append(vector)
        (folder / f"{number}.nii").write_text(str(number))
        first = float(vector[0])
        row = {
            "subject_id": f"s{number}",
            "T1": f"{number}.nii",
            "label": "ill" if first > 0 else "well",
            "age": f"{50 + 10 * first:.3f}",
            "noise": "ab"[number % 2],
            "days": f"{np.ceil(rng.exponential(np.exp(-2 * first)) * 200):.0f}",
            "died": str(int(rng.random() < 0.7)),
        }
        if split:
            row["split"] = "test" if number % 3 == 0 else "train"
        rows.append(row)
    table = folder / "t.csv"
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    cache = FeatureCache(folder / "cache")
    for row, vector in zip(read_table(table).rows, vectors, strict=True):
        pooled = np.stack([np.zeros(WIDTH, np.float32), vector])
        cache.write(RECIPE, cache.key_of(RECIPE, row, "T1"), {"pooled": pooled})
    return table, cache


def task_data(folder: Path, name: str, split: bool = True, **changes: Any) -> TaskData:
    """Collect the data of a shipped task on `feature_table`, with a small head and few runs."""
    table, cache = feature_table(folder, split=split)
    head = QUICK | ({"batch_size": None} if name == "survival" else {})
    settings = {"ratios": (0.25, 1.0), "seeds": 1, "head": head, "neighbours": (3,)}
    task = Task.model_validate(read_task(name).model_dump() | settings | changes)
    return TaskInputs(name, task, read_table(table), cache).collect()


def values(
    results: list[Result], metric: str, ratio: float = 1.0, model: str | None = None
) -> list[float]:
    """Return the values of a metric of one model, or of both models that learn."""
    models = (model,) if model else ("mlp", "linear")
    return [
        r.value for r in results if (r.metric, r.ratio) == (metric, ratio) and r.model in models
    ]


def run_command(table: Path, cache: FeatureCache, out: Path) -> tuple[object, ...]:
    """Return the arguments of a `heads run` command."""
    inputs = ("--table", table, "--cache", cache.folder, "-o", out)
    return ("nnunet-fm", "heads", "run", "classification", *inputs)


def encoder_recipe(name: str) -> FeatureRecipe:
    """Return the recipe of one of the two encoders of `two_encoders`."""
    preprocessing = {"strip": "none", "shape": [4, 8, 8]}
    return FeatureRecipe(name, name * 32, "dinov3_test16", {}, (3,), "bfloat16", preprocessing)


def two_encoders(folder: Path, subjects: int = 90) -> tuple[Path, FeatureCache]:
    """Write a table and the features of two encoders: `aa` sees the label, `bb` through noise."""
    rng = np.random.default_rng(0)
    signal = rng.standard_normal(subjects)
    table = folder / "t.csv"
    lines = ["subject_id,T1,label,days,died,split"]
    for n in range(subjects):
        (folder / f"{n}.nii").write_text(str(n))
        days = np.ceil(rng.exponential(np.exp(-signal[n])) * 300)
        label = "ill" if signal[n] > 0 else "well"
        split = "test" if n % 2 else "train"
        lines.append(f"s{n},{n}.nii,{label},{days:.0f},{int(rng.random() < 0.7)},{split}")
    table.write_text("\n".join(lines))
    cache = FeatureCache(folder / "cache")
    for name, noise in (("aa", 0.1), ("bb", 2.5)):
        recipe = encoder_recipe(name)
        for n, row in enumerate(read_table(table).rows):
            vector = (signal[n] + noise * rng.standard_normal(4)).astype(np.float32)
            cache.write(recipe, cache.key_of(recipe, row, "T1"), {"pooled": vector[None]})
    return table, cache


def finished_runs(
    folder: Path, overrides: tuple[str, ...] = COMPARED, task: str = "classification"
) -> list[FinishedRun]:
    """Run a task on the features of `bb` and `aa`."""
    table, cache = two_encoders(folder)
    runs = []
    for name in ("bb", "aa"):
        data = TaskInputs(task, read_task(task, overrides), read_table(table), cache).collect(name)
        runs.append(run_task(data, folder / "out", figures=False))
    return runs


def run_quickly(data: TaskData, out: Path) -> tuple[list[Result], Path]:
    """Run a task without figures; return its results and its folder."""
    run = run_task(data, out, figures=False)
    return run.results, run.folder
