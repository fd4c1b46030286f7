"""No two processes train one run."""

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from helpers.runs import WRITE, fake
from nnunet_fm.experiments.child_processes import ChildProcesses
from nnunet_fm.experiments.config import Sweep
from nnunet_fm.experiments.execute import execute, run_locally
from nnunet_fm.experiments.run_locks import (
    preprocessing_lock,
    run_lock,
    running_runs,
    sweep_lock,
)
from nnunet_fm.experiments.status import read_status


def test_two_processes_do_not_train_one_run(tmp_path: Path) -> None:
    run = fake(tmp_path, 0, WRITE)
    (tmp_path / "running").mkdir()
    (tmp_path / "running" / run.name).write_text(f"{socket.gethostname()} 1")
    assert running_runs(tmp_path) == [run.name]
    sweep = Sweep.model_validate({"datasets": [7], "encoders": {"a": {}}, "device": "cpu"})
    other = fake(tmp_path, 1, WRITE)
    refused, trained = (execute(r, sweep, tmp_path, ChildProcesses()) for r in (run, other))
    assert (refused.state, trained.state) == ("failed", "finished")
    assert "another process trains it" in refused.reason
    (tmp_path / "running" / run.name).write_text(f"{socket.gethostname()} 999999999")
    assert not running_runs(tmp_path)  # its process is dead
    assert run_locally([run], sweep, tmp_path, lambda _: None)[0].state == "finished"
    (tmp_path / "running" / run.name).write_text("another-machine 1")
    assert running_runs(tmp_path) == [run.name]  # its log was written a moment ago
    os.utime(tmp_path / "logs" / f"{run.name}.log", (0, 0))
    assert not running_runs(tmp_path)
    (tmp_path / "running" / run.name).write_text("")
    assert not running_runs(tmp_path)


SWEEP_OF_ONE = """
import pathlib, sys
from helpers.runs import WRITE, fake
from nnunet_fm.experiments.config import Sweep
from nnunet_fm.experiments.execute import run_locally
from nnunet_fm.experiments.run_locks import sweep_lock
folder = pathlib.Path(sys.argv[1])
sweep = Sweep.model_validate({"datasets": [7], "encoders": {"a": {}}, "device": "cpu"})
slow = "import time; time.sleep(3)\\n" + WRITE
with sweep_lock(folder):
    run_locally([fake(folder, 0, slow)], sweep, folder, print)
"""


def test_a_training_that_a_killed_sweep_left_is_waited_for(tmp_path: Path) -> None:
    run = fake(tmp_path, 0, "raise SystemExit(3)")  # a second training would fail
    killed = subprocess.Popen(
        [sys.executable, "-c", SWEEP_OF_ONE, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    log = tmp_path / "logs" / f"{run.name}.log"
    while not running_runs(tmp_path) or not log.is_file() or not log.read_text():
        assert killed.poll() is None
        time.sleep(0.01)
    time.sleep(0.3)  # the training has written its own number
    killed.kill()
    killed.wait()
    statuses = read_status([run], tmp_path, running_runs(tmp_path))
    assert [status.state for status in statuses] == ["running"]
    sweep = Sweep.model_validate({"datasets": [7], "encoders": {"a": {}}, "device": "cpu"})
    with sweep_lock(tmp_path):
        assert [o.state for o in run_locally([run], sweep, tmp_path, print)] == ["finished"]
    assert log.read_text().count("$ ") == 1
    assert not running_runs(tmp_path)


def test_a_preprocessing_that_a_killed_sweep_left_is_waited_for(tmp_path: Path) -> None:
    lock_file = preprocessing_lock(tmp_path)
    lock_file.parent.mkdir()
    left = subprocess.Popen(["sleep", "60"])
    lock_file.write_text(f"{socket.gethostname()} {left.pid}")
    assert not running_runs(tmp_path)  # it is no run
    threading.Timer(1.5, left.kill).start()
    started = time.monotonic()
    with sweep_lock(tmp_path):
        assert time.monotonic() - started > 1.4
    left.wait()


def test_a_second_sweep_in_one_folder_is_refused(tmp_path: Path) -> None:
    with (
        sweep_lock(tmp_path),
        pytest.raises(RuntimeError, match=f"{tmp_path} is being written by process {os.getpid()}"),
        sweep_lock(tmp_path),
    ):
        pass


def test_of_many_that_enter_at_once_one_trains(tmp_path: Path) -> None:
    run = fake(tmp_path, 0, "")
    (tmp_path / "running").mkdir()
    for _ in range(30):
        (tmp_path / "running" / run.name).write_text(
            f"{socket.gethostname()} 999999999"
        )  # of a dead one
        inside, most, lock, start = [0], [0], threading.Lock(), threading.Barrier(4)

        def enter(
            inside: list[int], most: list[int], lock: threading.Lock, start: threading.Barrier
        ) -> None:
            start.wait()
            with suppress(RuntimeError), run_lock(run, tmp_path):
                with lock:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                time.sleep(0.01)
                with lock:
                    inside[0] -= 1

        threads = [
            threading.Thread(target=enter, args=(inside, most, lock, start)) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == [1]
        assert not running_runs(tmp_path)
