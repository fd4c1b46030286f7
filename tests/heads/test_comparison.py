"""Two encoders on the same cases: one that knows more, one that knows the same, one that was tested elsewhere."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunet_fm.features import FeatureCache, FeatureRecipe, read_table
from nnunet_fm.heads.comparison import compare
from nnunet_fm.heads.runner import run_job
from nnunet_fm.heads.saved_runs import FinishedRun, read_run
from nnunet_fm.heads.task import read_task
from nnunet_fm.heads.task_data import make_job

WORDS = (
    "target=label",
    "ratios=[0.5,1.0]",
    "seeds=2",
    "models=[linear,knn,trivial]",
    "neighbours=[5]",
)


def recipe(name: str) -> FeatureRecipe:
    return FeatureRecipe(
        name,
        name * 32,
        "dinov3_test16",
        {},
        (3,),
        "bfloat16",
        {"strip": "none", "shape": [4, 8, 8]},
    )


def table_of(folder: Path, subjects: int = 90) -> tuple[Path, FeatureCache]:
    """Encoder `aa` sees the label, `bb` sees it through noise."""
    rng, cache = np.random.default_rng(0), FeatureCache(folder / "cache")
    signal = rng.standard_normal(subjects)
    table = folder / "t.csv"
    lines = ["subject_id,T1,label,days,died,split"]
    for n in range(subjects):
        (folder / f"{n}.nii").write_text(str(n))
        days = np.ceil(rng.exponential(np.exp(-signal[n])) * 300)
        split = "test" if n % 2 else "train"
        lines.append(
            f"s{n},{n}.nii,{'ill' if signal[n] > 0 else 'well'},{days:.0f},{int(rng.random() < 0.7)},{split}"
        )
    table.write_text("\n".join(lines))
    for name, noise in (("aa", 0.1), ("bb", 2.5)):
        for n, row in enumerate(read_table(table).rows):
            vector = (signal[n] + noise * rng.standard_normal(4)).astype(np.float32)
            cache.write(
                recipe(name), cache.key_of(recipe(name), row, "T1"), {"pooled": vector[None]}
            )
    return table, cache


def runs(
    folder: Path, words: tuple[str, ...] = WORDS, task: str = "classification"
) -> list[FinishedRun]:
    table, cache = table_of(folder)
    jobs = [
        make_job(task, read_task(task, words), read_table(table), cache, name)
        for name in ("bb", "aa")
    ]
    return [read_run(run_job(job, folder / "out")[1]) for job in jobs]


def test_the_better_encoder_is_found_and_p_is_adjusted(tmp_path: Path) -> None:
    found = {(c.model, c.metric, c.ratio): c for c in compare(runs(tmp_path))}
    assert {(m, k) for m, k, _ in found} == {
        ("linear", "AUC"),
        ("linear", "accuracy"),
        ("knn_5", "accuracy"),
    }
    area = found["linear", "AUC", 1.0]
    assert area.second_value - area.first_value == pytest.approx(area.difference)
    assert 0 < area.low < area.difference < area.high
    assert (area.test, area.seeds, area.n_test) == ("paired permutation", 2, 45)
    assert area.p < 0.01
    assert area.p_delong < 0.01
    assert area.p <= area.benjamini_hochberg <= area.holm <= 2 * area.p + 1e-12
    assert found["knn_5", "accuracy", 1.0].test == "McNemar, exact"
    assert found["knn_5", "accuracy", 1.0].p < 0.05


def test_an_encoder_does_not_beat_itself(tmp_path: Path) -> None:
    first, _ = runs(tmp_path)
    for c in compare([first, first]):
        assert (c.difference, c.low, c.high, c.p, c.holm) == (0, 0, 0, 1, 1)


def test_the_scale_of_risks_does_not_matter(tmp_path: Path) -> None:
    words = ("target=days", "event=died", "ratios=[1.0]", "seeds=1", "models=[linear]")
    first, second = runs(tmp_path, words, "survival")
    (before,) = compare([first, second])
    path = second.folder / "predictions_ratio_1_seed_0.csv"
    head, *lines = path.read_text().splitlines()
    parts = [line.rsplit(",", 1) for line in lines]
    path.write_text("\n".join([head, *(f"{a},{0.01 * float(b) + 7}" for a, b in parts)]))
    (after,) = compare([first, second])
    assert (after.p, after.difference, after.low) == (before.p, before.difference, before.low)
    assert before.p < 0.05


def test_what_cannot_be_paired_says_so(tmp_path: Path) -> None:
    first, second = runs(tmp_path)
    with pytest.raises(ValueError, match="1 run given; a comparison needs 2"):
        compare([first])
    path = second.folder / "predictions_ratio_1_seed_0.csv"
    text = path.read_text()
    path.write_text(text.replace("s1,s1", "s999,s999"))
    with pytest.raises(ValueError, match="tested on different cases"):
        compare([first, second])
    path.unlink()
    with pytest.raises(FileNotFoundError, match="type the heads run command again"):
        compare([first, second])
    second.about["protocol"] = "paper"
    with pytest.raises(ValueError, match="the runs differ in protocol: default, paper"):
        compare([first, second])
    with pytest.raises(FileNotFoundError, match="holds no finished run"):
        read_run(tmp_path / "cache")
    with pytest.raises(ValueError, match="holds 2 runs; name one"):
        read_run(tmp_path / "out")


def test_the_command_line_compares_and_draws(tmp_path: Path, run: Any) -> None:
    words = ("target=days", "event=died", "ratios=[0.5,1.0]", "seeds=1", "models=[linear]")
    first, second = runs(tmp_path, words, "survival")
    said = run(
        "nnunet-fm", "heads", "compare", first.folder, second.folder, "-o", tmp_path / "c"
    ).stdout
    assert "| linear | C-index | 1 | bb-" in said
    with (tmp_path / "c/comparison.csv").open() as stream:
        assert [row["metric"] for row in csv.DictReader(stream)] == ["C-index"] * 2
    names = {p.name.split("-")[0] for p in (tmp_path / "c").iterdir()}
    assert {"ratios_C_index.png", "ratios_C_index.svg", "survival_aa", "survival_bb"} <= names
    assert all(p.stat().st_size > 5000 for p in (tmp_path / "c").glob("*.png"))
