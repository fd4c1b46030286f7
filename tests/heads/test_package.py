"""The Python interface of `nnunet_fm.heads`."""

from pathlib import Path

import pytest
import torch

from helpers.heads import two_encoders
from nnunet_fm import heads

OVERRIDES = ["target=label", "ratios=[0.5,1.0]", "seeds=1", "models=[linear]"]


def test_what_the_commands_do_can_be_called_from_python(tmp_path: Path) -> None:
    table, cache = two_encoders(tmp_path, subjects=60)
    inputs = heads.open_task("classification", table, cache.folder, OVERRIDES)
    assert inputs.name == "classification_label"
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        runs = [heads.run_task(inputs.collect(name), tmp_path / "out") for name in ("aa", "bb")]
        assert torch.get_num_threads() == 2  # one thread only while heads are trained
    finally:
        torch.set_num_threads(threads)
    for run in runs:
        assert run.results == heads.read_run(run.folder).results
        assert (run.folder / "ratios_AUC.png").is_file()
        assert "| linear | AUC | 1 |" in heads.results_table(run.results)
    comparisons = heads.write_comparison(runs, tmp_path / "comparison")
    table_of_pairs = heads.comparison_table(comparisons)
    assert heads.comparison_table(heads.compare(runs)) == table_of_pairs
    assert (tmp_path / "comparison" / "comparison.md").read_text() == table_of_pairs + "\n"


def test_leakage_stops_a_task_or_is_recorded(tmp_path: Path) -> None:
    table, cache = two_encoders(tmp_path, subjects=60)
    manifest = tmp_path / "seen.txt"
    manifest.write_text("s1\n")  # tested
    with pytest.raises(ValueError, match="s1 is s1"):
        heads.open_task("classification", table, cache.folder, OVERRIDES, manifest)
    inputs = heads.open_task(
        "classification", table, cache.folder, OVERRIDES, manifest, allow_leakage=True
    )
    assert "s1 is s1" in inputs.collect("aa").leakage


def test_every_shipped_task_is_summarised_in_a_sentence() -> None:
    summaries = heads.task_summaries()
    assert {kind for _, kind, _ in summaries} == {"classification", "regression", "survival"}
    for name, _, summary in summaries:
        assert 20 < len(summary) < 100, name
        assert not summary.endswith((",", " the")), name
