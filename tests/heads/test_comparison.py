"""Encoders compared on the same cases: a better one, itself, and one with other cases."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.heads import finished_runs, run_quickly, task_data
from nnunet_fm.heads.comparison import compare, count_subjects, write_comparison
from nnunet_fm.heads.saved_runs import read_run


def test_the_better_encoder_is_found_and_p_is_adjusted(tmp_path: Path) -> None:
    comparisons = {(c.model, c.metric, c.ratio): c for c in compare(finished_runs(tmp_path))}
    assert {(m, k) for m, k, _ in comparisons} == {
        ("linear", "AUC"),
        ("linear", "accuracy"),
        ("knn_5", "accuracy"),
    }
    area = comparisons["linear", "AUC", 1.0]
    assert area.second_value - area.first_value == pytest.approx(area.difference)
    assert 0 < area.low < area.difference < area.high
    assert (area.test, area.seeds, area.n_test) == ("paired permutation", 2, 45)
    assert area.p < 0.01
    assert area.p_delong < 0.01
    assert area.p <= area.benjamini_hochberg <= area.holm <= 2 * area.p + 1e-12
    assert comparisons["knn_5", "accuracy", 1.0].test == "McNemar, exact"
    assert comparisons["knn_5", "accuracy", 1.0].p < 0.05


def test_an_encoder_does_not_beat_itself(tmp_path: Path) -> None:
    first, _ = finished_runs(tmp_path)
    for c in compare([first, first]):
        assert (c.difference, c.low, c.high, c.p, c.holm) == (0, 0, 0, 1, 1)


def test_the_scale_of_risks_does_not_matter(tmp_path: Path) -> None:
    words = ("target=days", "event=died", "ratios=[1.0]", "seeds=1", "models=[linear]")
    first, second = finished_runs(tmp_path, words, "survival")
    (before,) = compare([first, second])
    path = second.folder / "predictions_ratio_1_seed_0.csv"
    head, *lines = path.read_text().splitlines()
    parts = [line.rsplit(",", 1) for line in lines]
    path.write_text("\n".join([head, *(f"{a},{0.01 * float(b) + 7}" for a, b in parts)]))
    (after,) = compare([first, second])
    assert (after.p, after.difference, after.low) == (before.p, before.difference, before.low)
    assert before.p < 0.05


def test_results_that_cannot_be_paired_are_refused(tmp_path: Path) -> None:
    first, second = finished_runs(tmp_path)
    with pytest.raises(ValueError, match="1 run given; a comparison needs 2"):
        compare([first])
    path = second.folder / "predictions_ratio_1_seed_0.csv"
    text = path.read_text()
    path.write_text(text.replace("s1,s1", "s999,s999"))
    with pytest.raises(ValueError, match="tested on different cases"):
        compare([first, second])
    path.unlink()
    with pytest.raises(FileNotFoundError, match="rerun the command that wrote it"):
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
    first, second = finished_runs(tmp_path, words, "survival")
    output = run(
        "nnunet-fm", "heads", "compare", first.folder, second.folder, "-o", tmp_path / "c"
    ).stdout
    assert "| linear | C-index | 1 | bb-" in output
    with (tmp_path / "c/comparison.csv").open() as stream:
        assert [row["metric"] for row in csv.DictReader(stream)] == ["C-index"] * 2
    names = {p.name.split("-")[0] for p in (tmp_path / "c").iterdir()}
    assert {"ratios_C_index.png", "ratios_C_index.svg", "survival_aa", "survival_bb"} <= names
    assert all(p.stat().st_size > 5000 for p in (tmp_path / "c").glob("*.png"))


def test_the_note_on_few_subjects_counts_subjects(tmp_path: Path) -> None:
    data = task_data(tmp_path, "classification", target="label", models=("linear", "trivial"))
    places = [n for n, split in enumerate(data.splits) if split == "test"]
    subjects = [f"s{places.index(n) // 3}" if n in places else f"t{n}" for n in range(60)]
    few = replace(data, subjects=subjects)
    runs = [read_run(run_quickly(few, tmp_path / name)[1]) for name in "ab"]
    assert (runs[0].results[0].n_test, count_subjects(runs)) == (20, 7)
    write_comparison(runs, tmp_path / "few")
    assert "Fewer than 15 subjects" in (tmp_path / "few/comparison.md").read_text()
    runs = [read_run(run_quickly(data, tmp_path / name)[1]) for name in "cd"]
    write_comparison(runs, tmp_path / "enough")
    assert "Fewer than" not in (tmp_path / "enough/comparison.md").read_text()
