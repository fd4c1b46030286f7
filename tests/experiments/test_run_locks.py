"""No two processes train one run."""

import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from helpers.runs import WRITE, fake
from nnunet_fm.experiments.config import Sweep
from nnunet_fm.experiments.execute import run_locally
from nnunet_fm.experiments.run_locks import run_lock, running_runs


def test_two_processes_do_not_train_one_run(tmp_path: Path) -> None:
    run = fake(tmp_path, 0, WRITE)
    (tmp_path / "running").mkdir()
    (tmp_path / "running" / run.name).write_text(f"{socket.gethostname()} 1")
    assert running_runs(tmp_path) == [run.name]
    sweep = Sweep.model_validate({"datasets": [7], "encoders": {"a": {}}, "device": "cpu"})
    other = fake(tmp_path, 1, WRITE)
    refused, trained = run_locally([run, other], sweep, tmp_path, lambda _: None)
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
