"""Worker processes that end with the process that started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunet_fm.internal.processes import is_alive

POOL = """
import sys, time
from nnunet_fm.internal.processes import worker_pool
def work():
    import os
    return os.getpid()
if __name__ == "__main__":
    with worker_pool(1) as pool:
        pid = pool.submit(work).result()
        busy = pool.submit(time.sleep, 60)
        print(pid, flush=True)
        busy.result()
"""
SLOW_START = """
import sys, time
from nnunet_fm.internal.processes import worker_pool
time.sleep(1)  # as an import of torch, in the worker too
if __name__ == "__main__":
    with worker_pool(1) as pool:
        tasks = [pool.submit(time.sleep, 2) for _ in range(9)]
        print("started", flush=True)
        try:
            tasks[-1].result()
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            sys.exit(130)
"""
SECONDS = 20


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    with process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        process.kill()
    end = time.monotonic() + SECONDS
    while is_alive(worker):
        assert time.monotonic() < end, "the worker outlives its parent"
        time.sleep(0.05)


@pytest.mark.parametrize("seconds", [0.3, 2.5], ids=["importing", "working"])
def test_workers_print_nothing_after_ctrl_c(seconds: float, tmp_path: Path) -> None:
    script = tmp_path / "pool.py"
    script.write_text(SLOW_START)
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, printed = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert printed == ""


def test_a_process_that_started_later_has_only_the_number() -> None:
    now = time.time()
    assert is_alive(os.getpid(), since=now)
    assert not is_alive(os.getpid(), since=now - 10_000_000)
