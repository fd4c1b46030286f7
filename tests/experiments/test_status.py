"""The state of runs, and the page that shows it."""

from dataclasses import fields
from pathlib import Path

from helpers.runs import WRITE, fake
from nnunet_fm.experiments.config import Sweep
from nnunet_fm.experiments.execute import run_locally
from nnunet_fm.experiments.runs import Run, State, write_runs
from nnunet_fm.experiments.status import read_status, read_status_of_folders, status_page


def test_a_run_is_new_running_failed_or_finished(tmp_path: Path) -> None:
    runs = [fake(tmp_path, 0, WRITE), fake(tmp_path, 1, "raise SystemExit('<no>')")]
    assert [s.state for s in read_status(runs, tmp_path)] == [State.NEW, State.NEW]
    running = read_status(runs, tmp_path, [runs[1].name])
    assert [s.state.value for s in running] == ["new", "running"]
    sweep = Sweep.model_validate({"datasets": [7], "encoders": {"a": {}}, "device": "cpu"})
    run_locally(runs, sweep, tmp_path, lambda _: None)
    finished, failed = read_status(runs, tmp_path)
    assert (finished.state, finished.dice, finished.reason) == (State.FINISHED, 0.5, "")
    assert (failed.state, "return code 1" in failed.reason) == (State.FAILED, True)
    page = status_page([finished, failed], "a & b")
    assert "<h1>a &amp; b</h1>" in page
    assert "&lt;no&gt;" in page
    assert '<tr class="failed">' in page


def test_the_records_of_the_sweep_are_used_for_runs_given_by_folder(tmp_path: Path) -> None:
    run = fake(tmp_path, 0, "raise SystemExit(1)")
    sweep = Sweep.model_validate({"datasets": [7], "encoders": {"a": {}}, "device": "cpu"})
    run_locally([run], sweep, tmp_path, lambda _: None)
    plain = Run(**{f.name: getattr(run, f.name) for f in fields(Run)})
    write_runs([plain], tmp_path)
    assert read_status_of_folders([tmp_path], [plain])[0].state is State.FAILED
