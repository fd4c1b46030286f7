"""Worker processes that end with the process that started them."""

import os
import subprocess
import sys
import time
from pathlib import Path

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


def test_a_process_that_started_later_has_only_the_number() -> None:
    now = time.time()
    assert is_alive(os.getpid(), since=now)
    assert not is_alive(os.getpid(), since=now - 10_000_000)
