"""Runs of a sweep on this machine: failures, slots, and what is not trained twice."""

import os
from pathlib import Path

import pytest

from helpers.runs import WRITE, fake
from nnunet_fm.experiments.config import Sweep
from nnunet_fm.experiments.execute import RunOutcome, run_locally, slots
from nnunet_fm.experiments.runs import State
from nnunet_fm.experiments.status import read_status, status_page, status_table


def test_a_failed_run_is_reported_and_does_not_stop_the_others(tmp_path: Path) -> None:
    codes = (
        "print('nonsense ' * 3); raise SystemExit(3)",
        "import os; os.kill(os.getpid(), 9)",
        WRITE,
    )
    runs = [fake(tmp_path, n, code) for n, code in enumerate(codes)]
    sweep = Sweep.model_validate(
        {"datasets": [7], "encoders": {"a": {}}, "max_parallel": 2, "device": "cpu"}
    )
    told: list[RunOutcome] = []
    outcomes = run_locally(runs, sweep, tmp_path, told.append)
    assert [o.state for o in outcomes] == ["failed", "failed", "finished"]
    assert sorted(o.run for o in told) == sorted(o.run for o in outcomes)
    assert "return code 3" in outcomes[0].reason
    assert "nonsense nonsense nonsense" in outcomes[0].reason
    assert "killed by the system, most likely for memory" in outcomes[1].reason
    assert runs[2].state() is State.FINISHED
    lines = read_status(runs, tmp_path)
    assert [line.state for line in lines] == ["failed", "failed", "finished"]
    assert "2 failed, 1 finished" in status_table(lines)
    shown = status_page(lines, "<small>")
    assert 'http-equiv="refresh"' in shown
    assert "&lt;small&gt;" in shown
    assert "nonsense" in shown


def test_gpus_are_shared_out(tmp_path: Path) -> None:
    code = (
        "import os\n"
        f"open({str(tmp_path)!r} + '/' + os.environ['CUDA_VISIBLE_DEVICES'], 'a').write('x')\n"
        f"{WRITE}"
    )
    runs = [fake(tmp_path, n, "import time; time.sleep(0.5)\n" + code) for n in range(4)]
    words = {
        "datasets": [7],
        "encoders": {"a": {}},
        "max_parallel": 2,
        "gpus": [3, 5],
        "device": "cuda",
    }
    assert {
        o.state for o in run_locally(runs, Sweep.model_validate(words), tmp_path, lambda _: None)
    } == {"finished"}
    assert (tmp_path / "3").read_text() + (tmp_path / "5").read_text() == "xxxx"


@pytest.mark.skipif(
    len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="needs two cores"
)
def test_cores_are_shared_out(tmp_path: Path) -> None:
    code = (
        "import os\n"
        f"open({str(tmp_path)!r} + f'/{{min(os.sched_getaffinity(0))}}', 'a').write('x')\n"
        f"{WRITE}"
    )
    runs = [fake(tmp_path, n, "import time; time.sleep(0.5)\n" + code) for n in range(4)]
    words = {"datasets": [7], "encoders": {"a": {}}, "max_parallel": 2, "device": "cpu"}
    assert {
        o.state for o in run_locally(runs, Sweep.model_validate(words), tmp_path, lambda _: None)
    } == {"finished"}
    first, second = sorted(os.sched_getaffinity(0))[:2]
    assert (tmp_path / str(first)).read_text() + (tmp_path / str(second)).read_text() == "xxxx"


def test_more_runs_than_cores_take_turns() -> None:
    words = {"datasets": [7], "encoders": {"a": {}}, "max_parallel": 1000, "device": "cpu"}
    shares = slots(Sweep.model_validate(words))
    assert len(shares) == 1000
    assert all(len(s.cores or ()) == 1 for s in shares)


def test_a_run_that_was_finished_meanwhile_is_not_trained_again(tmp_path: Path) -> None:
    run = fake(tmp_path, 0, WRITE)
    sweep = Sweep.model_validate({"datasets": [7], "encoders": {"a": {}}, "device": "cpu"})
    assert [
        o.state for _ in range(2) for o in run_locally([run], sweep, tmp_path, lambda _: None)
    ] == ["finished"] * 2
    assert (tmp_path / "logs" / f"{run.name}.log").read_text().count("$ ") == 1
