"""Child processes end with the sweep."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from nnunet_fm.experiments.child_processes import ChildProcesses, run_logged, stopped_with_us
from nnunet_fm.internal.processes import is_alive


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_lost_connection_ends_the_children(number: int, tmp_path: Path) -> None:
    children, codes = ChildProcesses(), list[int]()
    words = ["python", "-c", "import time; time.sleep(60)"]
    thread = threading.Thread(
        target=lambda: codes.append(children.run(words, tmp_path / "log", {}))
    )
    with pytest.raises(KeyboardInterrupt), stopped_with_us(children):
        thread.start()
        while not children.running:
            time.sleep(0.01)
        os.kill(os.getpid(), number)
        time.sleep(10)
    thread.join(10)
    assert codes == [-signal.SIGTERM]


STUBBORN = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
worker = subprocess.Popen(["sleep", "60"])
pathlib.Path(sys.argv[1]).write_text(str(worker.pid))
time.sleep(float(sys.argv[2]))
"""


def wait_for_the_end(process: int) -> None:
    """A killed process is there for a moment longer."""
    end = time.monotonic() + 10
    while is_alive(process):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_child_that_ignores_sigterm_is_killed_with_its_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnunet_fm.experiments.child_processes.GRACE_SECONDS", 0.2)
    told = tmp_path / "worker"

    def interrupt() -> None:
        while not told.is_file() or not told.read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):  # preprocessing, in the main thread
        run_logged(["python", "-c", STUBBORN, str(told), "60"], tmp_path / "log")
    wait_for_the_end(int(told.read_text()))


def test_workers_of_a_child_that_ended_are_killed(tmp_path: Path) -> None:
    told = tmp_path / "worker"
    run_logged(["python", "-c", STUBBORN, str(told), "0"], tmp_path / "log", tmp_path / "lock")
    wait_for_the_end(int(told.read_text()))
    assert not (tmp_path / "lock").exists()  # another machine would wait for it
