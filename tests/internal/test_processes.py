"""Worker processes that end with the process that started them."""

import multiprocessing
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
import signal, sys, time
from nnunet_fm.internal.processes import worker_pool
time.sleep(1)  # as an import of torch, in the worker too
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
    with worker_pool(1) as pool:
        tasks = [pool.submit(time.sleep, 2) for _ in range(9)]
        print("started", flush=True)
        try:
            tasks[-1].result()
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            sys.exit(130)
"""
LIBRARY = """
import multiprocessing, signal, sys, time
from nnunet_fm.internal.processes import end_workers_with_us
def wait(event):
    event.wait()
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
    end_workers_with_us()
    spawn = multiprocessing.get_context("spawn")
    manager = multiprocessing.Manager()
    event = manager.Event()
    workers = [spawn.Process(target=wait, args=(event,), daemon=True)]
    if sys.argv[1:]:
        fork = multiprocessing.get_context(sys.argv[1])
        workers += [fork.Process(target=time.sleep, args=(60,), daemon=True) for _ in range(2)]
    for worker in workers:
        worker.start()
    with spawn.Pool(1) as pool:
        busy = pool.apply_async(time.sleep, (60,))
        processes = [*workers, *pool._pool, manager._process]
        print(*[process.pid for process in processes], flush=True)
        try:
            busy.get()
        except KeyboardInterrupt:
            raise SystemExit(130)
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
    _assert_end([worker])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_of_libraries_end_with_the_process(number: int, tmp_path: Path) -> None:
    forks = ["fork"] if "fork" in multiprocessing.get_all_start_methods() else []
    process, workers = _library_process(tmp_path, *forks)
    with process:
        time.sleep(0.5)  # the spawned ones have imported what they need
        process.send_signal(number)
        _, printed = process.communicate(timeout=SECONDS)
    _assert_end(workers)
    assert "Traceback" not in printed  # Python's tracker warns of semaphores that it removes


@pytest.mark.parametrize("seconds", [0, 0.5], ids=["importing", "working"])
def test_workers_of_libraries_print_nothing_after_ctrl_c(seconds: float, tmp_path: Path) -> None:
    process, workers = _library_process(tmp_path)
    with process:
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        _, printed = process.communicate(timeout=SECONDS)
    _assert_end(workers)
    assert process.returncode == 130
    assert printed == ""


def _library_process(folder: Path, *words: str) -> tuple["subprocess.Popen[str]", list[int]]:
    script = folder / "library.py"
    script.write_text(LIBRARY)
    process = subprocess.Popen(
        [sys.executable, str(script), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    return process, [int(word) for word in process.stdout.readline().split()]


def _assert_end(workers: list[int]) -> None:
    end = time.monotonic() + SECONDS
    while any(is_alive(worker) for worker in workers):
        assert time.monotonic() < end, "a worker outlives its parent"
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
