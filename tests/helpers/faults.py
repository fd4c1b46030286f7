"""Commands with faults: what each needs, and what has to hold after every fault."""

import fnmatch
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

SERVER = Path(__file__).with_name("fault_server.py")
OURS = (".nnunet-fm*.lock", ".nnunet-fm*.holder.json", "*/running/.lock", "hashes.sqlite*")
NNUNET = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
GROUPS = ("analyse", "features", "heads", "pretrain")  # of commands
PAGE = 4096  # bytes that a disk in memory gives to a file at once
LARGE = 1 << 26  # bytes of a disk that every result fits on
SECONDS = 120.0  # after which a command counts as hung
BUSY = ("is being written by", "exists", "has just written", "is not empty", "not empty")


@dataclass(frozen=True)
class Row:
    """A command that writes.

    Attributes:
        text: what is typed behind `nnunet-fm`, in the folder of the inputs.
        inputs: files and folders of the session's inputs that it needs.
        varies: patterns of files whose bytes differ from run to run, e.g. logs.
        theirs: patterns of files that nnU-Net writes itself, not atomically.
        code: exit code of a command that works.
        refuses_finished: the command refuses a finished result.
        rests: with a finished result it writes nothing, so that a read-only disk will do.
        slow: has two faults, unless all are asked for.
        fake_training: trainings are a line of Python.
    """

    text: str
    inputs: tuple[str, ...]
    varies: tuple[str, ...] = ()
    theirs: tuple[str, ...] = ()
    code: int = 0
    slow: bool = False
    refuses_finished: bool = False
    rests: bool = False
    fake_training: bool = False

    @property
    def name(self) -> str:
        """The command without its arguments."""
        words = self.text.split()
        return " ".join(words[: 2 if words[0] in GROUPS else 1])


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, events, whether processes were left, what it printed."""

    code: int | str
    events: int
    left: bool
    said: str


@dataclass
class Bench:
    """A place where commands are run, always the same one, so that paths in results are equal.

    Args:
        base: empty folder.
        inputs: what rows copy their inputs from.
    """

    base: Path
    inputs: Path
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.work = self.base / "work"
        self.finished = self.base / "finished"
        self.server = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment(),
        )

    def _environment(self) -> dict[str, str]:
        folders = {name: str(self.work / name) for name in NNUNET}
        quiet = {"PYTHONWARNINGS": "ignore", "MPLBACKEND": "Agg", "TQDM_DISABLE": "1"}
        threads = {"OMP_NUM_THREADS": "1", "nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1"}
        path = os.pathsep.join(sys.path)
        return os.environ | folders | quiet | threads | {"PYTHONPATH": path}

    def close(self) -> None:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.close()
        self.server.wait(60)
        self.server.stdout.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        print(json.dumps(request), file=self.server.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self.server.stdout.readline())
        return answer

    def start(self, row: Row, fault: str = "none", at: int = 0, number: int = 0) -> int:
        request = {
            "start": row.text.split(),
            "folder": str(self.work),
            "output": str(self.base / f"output{number}"),
            "fault": fault,
            "at": at,
            "fake_training": row.fake_training,
        }
        return int(self._ask(request)["process"])

    def wait(self, process: int, number: int = 0) -> Ended:
        answer = self._ask({"wait": process, "seconds": SECONDS})
        said = (self.base / f"output{number}").read_text(errors="replace")
        return Ended(answer["code"], answer["events"], answer["left"], said)

    def run(self, row: Row, fault: str = "none", at: int = 0) -> Ended:
        ended = self.wait(self.start(row, fault, at))
        assert ended.code != "hung", ended.said
        assert not ended.left, "processes outlive the command"
        return ended

    def begin(self, row: Row) -> None:
        """Put the inputs of a row into the folder, and nothing else."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True, exist_ok=True)  # it may be a disk of its own
        for name in row.inputs:
            source, target = self.inputs / name, self.work / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True)
            else:
                shutil.copyfile(source, target)
        for name in NNUNET:
            if not (self.work / name).exists():
                (self.work / name).mkdir()

    @contextmanager
    def own_disk(self) -> Iterator[bool]:
        """Make the folder of the commands a disk in memory; yield whether that is allowed."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        mounted = _mount("-t", "tmpfs", "-o", f"size={LARGE}", "none", str(self.work))
        try:
            yield mounted
        finally:
            if mounted:
                subprocess.run(["umount", str(self.work)], check=True)

    def resize(self, size: int) -> None:
        """Give the disk another size in bytes."""
        assert _mount("-o", f"remount,size={size}", str(self.work))

    def begin_finished(self) -> None:
        """Put the inputs and the finished result of the reference run into the folder."""
        shutil.rmtree(self.work)
        shutil.copytree(self.finished, self.work, symlinks=True)

    def keep_finished(self) -> None:
        shutil.rmtree(self.finished, ignore_errors=True)
        shutil.copytree(self.work, self.finished, symlinks=True)

    def content(self, row: Row) -> dict[str, str]:
        """Return the hash of every file but locks, databases, temporary files and what varies."""
        found = {}
        for path in sorted(self.work.rglob("*")):
            name = str(path.relative_to(self.work))
            if path.is_file() and not _matches(name, (*OURS, *row.varies)) and ".tmp/" not in name:
                found[name] = _sha256(path)
        return found

    def leftovers(self) -> list[str]:
        """List what is in temporary folders; an empty one costs nothing."""
        return [str(path) for path in self.work.rglob(".nnunet-fm-*.tmp/*")]


def _mount(*words: str) -> bool:
    """Call `mount`; return whether it worked."""
    if shutil.which("mount") is None:
        return False
    return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0


def _sha256(path: Path) -> str:
    """Hash the bytes of a file; of JSON and checkpoints the content, whose order may differ."""
    content = path.read_bytes()
    try:
        if path.suffix == ".json":
            content = json.dumps(json.loads(content), sort_keys=True).encode()
        if path.suffix == ".pt":
            content = "\n".join(sorted(_leaves(torch.load(path), ""))).encode()
    except (ValueError, RuntimeError, EOFError):
        pass  # half a file
    return hashlib.sha256(content).hexdigest()


def _leaves(content: Any, where: str) -> Iterator[str]:
    """Yield the place and the value of everything in nested lists and dictionaries."""
    if isinstance(content, torch.Tensor):
        yield f"{where} {content.dtype} {content.numpy().tobytes().hex()}"
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from _leaves(value, f"{where}/{key}")
    elif isinstance(content, list | tuple):
        for number, value in enumerate(content):
            yield from _leaves(value, f"{where}/{number}")
    else:
        yield f"{where} {content!r}"


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    last = name.rsplit("/", 1)[-1]
    return any(fnmatch.fnmatch(name, p) or fnmatch.fnmatch(last, p) for p in patterns)


@dataclass(frozen=True)
class Reference:
    """An undisturbed run: its events, hashes of its files, and the size of the largest new one."""

    events: int
    before: dict[str, str]
    files: dict[str, str]
    largest: int


def reference(bench: Bench, row: Row) -> Reference:
    """Run a command undisturbed, and keep its result."""
    bench.begin(row)
    before = bench.content(row)
    ended = bench.run(row)
    assert ended.code == row.code, ended.said
    after = bench.content(row)
    new = [name for name in after if before.get(name) != after[name]]
    bench.keep_finished()
    largest = max((bench.work / name).stat().st_size for name in new) if new else 0
    return Reference(ended.events, before, after, largest)


def check_whole(bench: Bench, row: Row, expected: Reference, finished: bool) -> None:
    """Check that no file under a final name is half, and that a finished result is still there."""
    now = bench.content(row)
    whole = {*expected.files.items(), *expected.before.items()}
    half = [name for name, sha in now.items() if (name, sha) not in whole]
    half = [name for name in half if not _matches(name, row.theirs)]
    half = [name for name in half if not _is_marker_of_incomplete(bench.work / name)]
    assert not half, f"half files, or of no undisturbed run: {half}"
    if finished:
        lost = sorted(set(expected.files) - set(now))
        assert not lost, f"a finished result lost {lost}"


def _is_marker_of_incomplete(path: Path) -> bool:
    return path.name.startswith("finished_") and '"finished": false' in path.read_text()


def check_same_after_rerun(bench: Bench, row: Row, expected: Reference) -> None:
    """Run the command again, undisturbed, and compare with the reference, byte for byte."""
    complete = bench.content(row) == expected.files
    ended = bench.run(row)
    if not (row.refuses_finished and complete):
        assert ended.code == row.code, ended.said
    now = bench.content(row)
    different = [n for n in {*now, *expected.files} if now.get(n) != expected.files.get(n)]
    assert not different, f"differ from an undisturbed run: {sorted(different)}"
    assert not bench.leftovers()


def check_fault(
    bench: Bench, row: Row, expected: Reference, fault: str, at: int, finished: bool = False
) -> None:
    """Run a command with a fault, and check everything that has to hold.

    Args:
        bench: where.
        row: the command.
        expected: its undisturbed run, whose result is kept.
        fault: see `Injector`.
        at: event that it happens at.
        finished: begin with a finished result.
    """
    if finished:
        bench.begin_finished()
    else:
        bench.begin(row)
    ended = bench.run(row, fault, at)
    bench.counts[f"{row.name} {fault}"] += 1
    if fault == "kill":
        assert ended.code in (-9, row.code) or row.refuses_finished, ended.said
    elif ended.code != row.code:
        check_refusal(ended)
    check_whole(bench, row, expected, finished)
    check_same_after_rerun(bench, row, expected)


def check_refusal(ended: Ended) -> None:
    """Check that a command said in a sentence why it failed."""
    assert "Traceback" not in ended.said, ended.said
    assert ended.code in (1, 2), ended.said
    assert "nnunet-fm: " in ended.said or "failed" in ended.said, ended.said


def check_small_disk(bench: Bench, row: Row, expected: Reference) -> None:
    """Run a command on a disk that half of its result fits on, then on a larger one.

    The disk is in memory; where this process may not mount one, nothing is checked.
    """
    new = [name for name in expected.files if expected.before.get(name) != expected.files[name]]
    pages = sum(-(-(bench.finished / name).stat().st_size // PAGE) for name in new)
    with bench.own_disk() as mounted:
        if not mounted:
            return
        bench.begin(row)
        state = os.statvfs(bench.work)
        used = (state.f_blocks - state.f_bfree) * state.f_frsize
        bench.resize(used + pages // 2 * PAGE)
        ended = bench.run(row)
        bench.counts[f"{row.name} small disk"] += 1
        check_refusal(ended)
        check_whole(bench, row, expected, finished=False)
        bench.resize(LARGE)
        check_same_after_rerun(bench, row, expected)


def check_rests(bench: Bench, row: Row, expected: Reference) -> None:
    """Run a command again on its finished result, on a read-only disk: it works."""
    bench.begin_finished()
    ended = bench.run(row, "read-only")
    bench.counts[f"{row.name} read-only, finished"] += 1
    assert ended.code == row.code, ended.said
    assert bench.content(row) == expected.files


def check_twice(bench: Bench, row: Row, expected: Reference) -> None:
    """Run a command twice at once; each of them works or says why not, and the result is whole."""
    bench.begin(row)
    processes = [bench.start(row, number=number) for number in range(2)]
    both = [bench.wait(process, number) for number, process in enumerate(processes)]
    bench.counts[f"{row.name} twice"] += 1
    assert any(ended.code == row.code for ended in both), [ended.said for ended in both]
    for ended in both:
        assert not ended.left
        assert "Traceback" not in ended.said, ended.said
        if ended.code != row.code:
            assert any(text in ended.said for text in BUSY), ended.said
    check_same_after_rerun(bench, row, expected)
