"""Results that version 0.1 wrote are read, and its finished settings are not computed again."""

import csv
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from helpers.version_0_1 import unpack
from nnunet_fm import heads

OVERRIDES = ["modalities=[T1]", "ratios=[0.5,1.0]", "seeds=2", "head.steps=20", "head.hidden=8"]
TASKS = {
    "classification": ["target=label", "neighbours=[1,3]"],
    "survival": ["target=days", "event=died"],
}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("old"))


def test_runs_of_version_0_1_compare_as_they_did(old: Path) -> None:
    folders = sorted((old / "heads" / "classification_label").iterdir())
    runs = [heads.read_run(folder) for folder in folders]
    comparisons = heads.compare(runs)
    with (old / "heads" / "comparison" / "comparison.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert len(comparisons) == len(lines) > 0
    for comparison, line in zip(comparisons, lines, strict=True):
        values = asdict(comparison)
        assert list(values) == list(line)  # the columns and their order
        for column, value in values.items():
            if isinstance(value, str):
                assert value == line[column]
            else:
                assert value == pytest.approx(float(line[column]), abs=1e-9, nan_ok=True), column


def test_what_a_killed_command_left_is_no_run(old: Path, tmp_path: Path) -> None:
    finished = next((old / "heads" / "classification_label").glob("encoder-*/*"))
    run = tmp_path / "label" / "encoder" / finished.name
    shutil.copytree(finished, run)
    shutil.copytree(finished, run / ".nnunet-fm-host-1-abc.tmp")
    assert heads.read_run(tmp_path).folder == run


@pytest.mark.parametrize("task", TASKS)
def test_a_run_of_version_0_1_is_resumed_and_not_computed_again(
    task: str, old: Path, tmp_path: Path
) -> None:
    work = tmp_path / "v0_1"
    for name in ("heads", "cache"):
        shutil.copytree(old / name, work / name)
    table = work / "cache" / "volumes" / "subjects.csv"
    overrides = [*TASKS[task], *OVERRIDES]
    inputs = heads.open_task(task, table, work / "cache" / "features", overrides)
    (folder,) = (work / "heads" / inputs.name).glob("encoder-*/*")
    former = heads.read_run(folder)
    markers = {path: path.stat().st_mtime_ns for path in folder.glob("ratio_*.json")}
    assert len(markers) == 4
    run = heads.run_task(inputs.collect("encoder"), work / "heads", figures=False)
    assert run.folder == folder
    results = folder / "results.csv"
    whole = results.read_text()
    results.write_text(whole[: whole.index("\n", len(whole) // 2) + 1])
    with pytest.raises(ValueError, match=r"results\.csv has \d+ rows, but \d+ were written"):
        heads.read_run(folder)
    results.write_text(whole)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("ratio_*.json")} == markers
    assert heads.results_table(run.results) == heads.results_table(former.results)
    assert (folder / "results.md").read_text() == (
        old / "heads" / folder.relative_to(work / "heads") / "results.md"
    ).read_text()
