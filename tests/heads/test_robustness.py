"""Heads of clean features on features of perturbed volumes."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.heads import encoder_recipe, two_encoders
from nnunet_fm.data.perturbations import Perturbation
from nnunet_fm.features import FeatureCache, read_table
from nnunet_fm.heads.robustness import measure_robustness
from nnunet_fm.heads.task import read_task
from nnunet_fm.heads.task_data import TaskInputs

TASK = read_task("classification", ["target=label", "seeds=2", "models=[linear,trivial]"])


def perturbed_cache(folder: Path) -> tuple[Path, FeatureCache]:
    """Under a bias field the features of encoder `aa` are noise, the more the stronger it is."""
    table, cache = two_encoders(folder)
    rng = np.random.default_rng(0)
    for severity in (0.1, 0.4):
        other = replace(encoder_recipe("aa"), perturbation=Perturbation("bias", severity).to_dict())
        for row in read_table(table).rows:
            clean = cache.read(encoder_recipe("aa"), cache.key_of(encoder_recipe("aa"), row, "T1"))
            assert clean is not None
            noise = 10 * severity * rng.standard_normal(4).astype(np.float32)
            cache.write(other, cache.key_of(other, row, "T1"), {"pooled": clean["pooled"] + noise})
    return table, cache


def test_the_loss_grows_with_the_severity_and_clean_is_clean(tmp_path: Path) -> None:
    table, cache = perturbed_cache(tmp_path)
    inputs = TaskInputs("x", TASK, read_table(table), cache)
    results = [r for r in measure_robustness(inputs, "aa") if r.metric == "AUC"]
    by_severity = {(r.severity, r.seed): r for r in results}
    assert {(r.model, r.family) for r in results} == {("linear", "bias")}
    assert {s for s, _ in by_severity} == {0.0, 0.1, 0.4}
    for seed in (0, 1):
        clean, weak, strong = (by_severity[s, seed] for s in (0.0, 0.1, 0.4))
        assert (clean.change, clean.change_low, clean.change_high) == (0, 0, 0)
        assert clean.value > weak.value > strong.value
        assert strong.change == pytest.approx(strong.value - clean.value)
        assert strong.change_low < strong.change < strong.change_high < 0
    assert cache.recipe("aa") == encoder_recipe(
        "aa"
    )  # perturbed ones are never taken for clean ones
    with pytest.raises(
        ValueError,
        match=r"no perturbed features of bb; type: nnunet-fm features extract .* --perturb",
    ):
        measure_robustness(inputs, "bb")


def test_the_command_line_writes_a_table_and_a_figure(tmp_path: Path, run: Any) -> None:
    table, cache = perturbed_cache(tmp_path)
    options = ("--table", table, "--cache", cache.folder, "--encoder", "aa", "-o", tmp_path / "o")
    output = run(
        "nnunet-fm", "heads", "robustness", "classification", "target=label", "seeds=1", *options
    ).stdout
    assert "| linear | AUC | bias 0.4 |" in output
    with (tmp_path / "o/robustness.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) > 5
    # named as `heads run` names it
    assert {row["task"] for row in rows} == {"classification_label"}
    assert (tmp_path / "o/robustness.png").stat().st_size > 5000
    assert "bias 0.4" in run("nnunet-fm", "features", "list", "--cache", cache.folder).stdout
