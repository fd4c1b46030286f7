"""Starts commands of nnunet-fm in forks of this process, each with a fault injected from outside.

The slow imports are made once. One JSON line in, one out:
`{"start": [...], "folder": ..., "output": ..., "fault": ..., "at": n}` -> `{"process": ...}`;
`{"wait": process, "seconds": ...}` -> `{"code": ..., "events": ..., "left": ...}`.

A fault acts at an event: the command opens a file below `folder` for writing, makes, renames or
removes something there, or waits for the disk (fsync).
"""

import importlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

MODULES = (
    "torch",
    "matplotlib.pyplot",
    "SimpleITK",
    "nibabel",
    "scipy.stats",
    "sklearn.linear_model",
    "sklearn.metrics",
    "nnunet_fm.cli.main",
    "nnunet_fm.data.brats",
    "nnunet_fm.encoders",
    "nnunet_fm.evaluation.segmentation",
    "nnunet_fm.experiments.report",
    "nnunet_fm.experiments.run_sweep",
    "nnunet_fm.experiments.summary",
    "nnunet_fm.features",
    "nnunet_fm.heads",
    "nnunet_fm.nnunet.export",
    "nnunet_fm.nnunet.planning",
    "nnunet_fm.nnunet.predictor",
    "nnunet_fm_pretrain.data.prepare",
    "nnunet_fm_pretrain.probing.run",
    "nnunet_fm_pretrain.runs",
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGING = {"os.rename", "os.remove", "os.rmdir"}  # a full disk allows them
ADDING = {"os.mkdir", "os.symlink", "os.link"}
ERRORS = {"full": (28, "No space left on device"), "read-only": (30, "Read-only file system")}
HANDLES = 24  # more files than are open now, with the fault `handles`
FAKE_TRAINING = """
import pathlib
p = pathlib.Path(folder); (p / "validation").mkdir(parents=True, exist_ok=True)
(p / "checkpoint_final.pth").touch()
(p / "validation/summary.json").write_text('{"foreground_mean": {"Dice": 0.5}}')
"""


class Injector:
    """Counts the events of this process, and lets the fault happen.

    Args:
        folder: only what happens below it counts.
        fault: `none`, `kill`, `full`, `read-only`, `handles` or `size`.
        at: number of the first event that it happens at, from 0; bytes of a file with `size`.
    """

    def __init__(self, folder: str, fault: str, at: int) -> None:
        self.folder, self.fault, self.at = folder, fault, at
        self.events = 0
        if fault == "size":
            resource.setrlimit(resource.RLIMIT_FSIZE, (at, resource.RLIM_INFINITY))
        if fault == "handles":
            limit = max(map(int, os.listdir("/proc/self/fd"))) + HANDLES
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        if fault == "read-only":
            os.access = self.access  # type: ignore[assignment]
        sys.addaudithook(self.audit)
        self.fsync = os.fsync
        os.fsync = self.sync

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            counts = bool(flags & WRITING)
        else:
            counts = event in CHANGING or event in ADDING
            path = arguments[0] if counts else None
        if counts and isinstance(path, str | bytes | os.PathLike):
            path = os.path.abspath(os.fsdecode(path))
            if path.startswith(self.folder):
                self.happen(path, event in CHANGING)

    def access(self, path: str | os.PathLike[str], mode: int) -> bool:
        """Answer as a read-only disk does."""
        return not (mode & os.W_OK and os.path.abspath(path).startswith(self.folder))

    def sync(self, number: int) -> None:
        self.happen("fsync", False)
        self.fsync(number)

    def happen(self, path: str, changing: bool) -> None:
        now = self.events >= self.at
        self.events += 1
        if now and self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if now and (self.fault == "read-only" or (self.fault == "full" and not changing)):
            code, text = ERRORS[self.fault]
            raise OSError(code, text, path)


def fake_training() -> None:
    """Let trainings of a sweep be a line of Python."""
    from nnunet_fm.experiments.runs import Run

    def command(self: Run, device: str) -> list[str]:
        return ["python", "-c", f"folder = {str(self.folder)!r}\n{FAKE_TRAINING}"]

    Run.command = command  # type: ignore[method-assign]


def run_command(request: dict[str, Any], report: int) -> int:
    """Run a command in this fork; write the number of events to `report`."""
    os.setsid()
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(request["folder"])
    from nnunet_fm.cli.main import main

    if request.get("fake_training"):
        fake_training()
    injector = Injector(request["folder"], request["fault"], request["at"])
    try:
        code = main(request["start"])
    except SystemExit as stop:
        code = int(stop.code or 0)
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(report, str(injector.events).encode())
    return code


def start(request: dict[str, Any], reports: dict[int, int]) -> int:
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        code = 99
        try:
            code = run_command(request, writing)
        finally:
            os._exit(code)
    os.close(writing)
    reports[process] = reading
    return process


def group_left(group: int, seconds: float) -> bool:
    """Whether processes of a group are still there after some seconds; they are killed then."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.02)
    os.killpg(group, signal.SIGKILL)
    return True


def wait(process: int, seconds: float, reports: dict[int, int]) -> dict[str, Any]:
    end = time.monotonic() + seconds
    hung = False
    done, status = os.waitpid(process, os.WNOHANG)
    while not done:
        if time.monotonic() > end and not hung:
            hung = True
            os.kill(process, signal.SIGKILL)
        time.sleep(0.005)
        done, status = os.waitpid(process, os.WNOHANG)
    reading = reports.pop(process)
    events = os.read(reading, 100).decode()
    os.close(reading)
    code = "hung" if hung else os.waitstatus_to_exitcode(status)
    return {"code": code, "events": int(events or 0), "left": group_left(process, 5)}


def serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a module prints when it is imported
    for module in MODULES:
        importlib.import_module(module)
    import torch

    torch.set_num_threads(1)
    reports: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            Path(request["output"]).parent.mkdir(parents=True, exist_ok=True)
            answer: dict[str, Any] = {"process": start(request, reports)}
        else:
            answer = wait(request["wait"], request["seconds"], reports)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve()
