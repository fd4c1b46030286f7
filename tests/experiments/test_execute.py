"""A sweep through nnU-Net's own commands: killed, continued, finished; and how its ends are told."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk

from nnunet_fm.experiments.config import Sweep
from nnunet_fm.experiments.execute import (
    Children,
    Outcome,
    _marked,
    places,
    run_here,
    running,
    stopping,
)
from nnunet_fm.experiments.runs import Run, State
from nnunet_fm.experiments.slurm import batch_file
from nnunet_fm.experiments.status import page, read_status, table
from nnunet_fm.nnunet.training_log import read_progress

CONFIG = """
datasets: [7]
encoders:
  tiny: {encoder: dinov3_test16, trainer: FrozenDinoTrainerTest, patch: [32, 32], batch_size: 2}
ratios: [0.5, 1.0]
seeds: [3]
device: cpu
processes: 1
"""


@pytest.fixture
def words(dataset: Path, tmp_path: Path) -> list[object]:
    (tmp_path / "small.yaml").write_text(CONFIG)
    return ["nnunet-fm", "sweep", tmp_path / "small.yaml", "-o", tmp_path / "sweep"]


def test_a_killed_sweep_goes_on_and_a_finished_one_does_nothing(
    words: list[object], nnunet: dict[str, str], run: Callable[..., Any], tmp_path: Path
) -> None:
    printed = run(*words, "--print").stdout.splitlines()
    assert [line.split()[0] for line in printed] == ["nnUNetv2_train"] * 2
    sbatch = run(
        *words, "--dry-run", "--executor", "slurm", "slurm={partition: gpu, time: 60}"
    ).stdout
    assert "2 new" in sbatch
    assert "checkpoints about" in sbatch
    assert "#SBATCH --array=0-1%1" in sbatch
    assert "#SBATCH --partition=gpu" in sbatch

    script = str(Path(sys.executable).parent / "nnunet-fm")
    process = subprocess.Popen(
        [script, *map(str, words[1:])],
        env=os.environ | nnunet,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    model = (
        Path(nnunet["nnUNet_results"])
        / "Dataset007_Small"
        / "FrozenDinoTrainerTest__SW_tiny_r050_s3__2d_fm32"
    )
    while not (model / "fold_0" / "checkpoint_latest.pth").is_file() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert "Type the same command to go on" in process.communicate()[0]
    assert process.returncode == 130
    assert not running(tmp_path / "sweep")
    status = run(
        "nnunet-fm", "sweep", "status", tmp_path / "sweep", "--html", tmp_path / "s.html"
    ).stdout
    assert "1 interrupted, 1 new" in status or "1 finished, 1 new" in status

    said = run(*words, "--executor", "submitit").stdout
    assert "007_tiny_r1_s3_f0: finished" in said
    assert "2 finished" in said.splitlines()[-1]
    log = (tmp_path / "sweep/logs/007_tiny_r0.5_s3_f0.log").read_text()
    assert log.count("$ nnUNetv2_train") == 2
    assert log.count("--c\n") == 1
    final = model / "fold_0" / "checkpoint_final.pth"
    before = final.stat().st_mtime_ns
    assert "2 finished" in run(*words).stdout
    assert final.stat().st_mtime_ns == before
    progress = read_progress(model / "fold_0")
    assert (progress.epoch, progress.epochs, progress.seconds_left) == (2, 2, 0)
    refused = run(*words, "encoders.tiny.seed=4", expect=2).stdout
    assert "exist already, with another" in refused
    _look_at_robustness_and_report(run, tmp_path / "sweep", model)


def _look_at_robustness_and_report(run: Callable[..., Any], sweep: Path, model: Path) -> None:
    asked = ("nnunet-fm", "robustness", sweep, "--perturb", "gamma=2", "-device", "cpu", "-np", 1)
    said = run(*asked, "--ratio", 0.5).stdout
    values = dict(re.findall(r"\| tiny \| 0.5 \| mean \| gamma \| (\d) \| ([\d.]+) ", said))
    assert list(values) == ["1", "2"]
    clean, changed = (model / "fold_0" / "perturbed" / name for name in ("none", "gamma_2"))
    for file in (model / "fold_0" / "validation").glob("*.nii.gz"):
        one, other, third = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(f / file.name)))
            for f in (file.parent, clean, changed)
        )
        assert (one == other).all()  # what the training's validation gave
        assert (one != third).any()
    assert not list(changed.glob("images*"))
    before = changed.stat().st_mtime_ns
    run(*asked, "--ratio", 0.5)
    assert changed.stat().st_mtime_ns == before  # predicted once
    refused = run(*asked, "--encoder", "tyni", expect=2).stdout
    assert "no finished run fits; there are: tiny at 0.5, seed 3, tiny at 1, seed 3" in refused

    run("nnunet-fm", "report", sweep, "-o", sweep / "report", "-np", 1)
    page = (sweep / "report" / "report.html").read_text()
    assert "Unfinished" not in page
    assert "Dice under perturbations of images at ratio 0.5" in page
    assert 'id="canvas"' in page
    assert re.search(r"<td>[\d.]+ \(process\)</td>", page)  # peak memory, from the real log


@dataclass(frozen=True)
class Fake(Run):
    """A run whose training is a line of Python."""

    code: str = ""

    def command(self, device: str) -> list[str]:
        return ["python", "-c", f"folder = {str(self.folder)!r}\n{self.code}"]


WRITE = """
import pathlib
p = pathlib.Path(folder); (p / "validation").mkdir(parents=True)
(p / "checkpoint_final.pth").touch()
(p / "validation/summary.json").write_text('{"foreground_mean": {"Dice": 0.5}}')
"""


def fake(folder: Path, number: int, code: str) -> Fake:
    fold = folder / "results" / f"{number}" / "fold_0"
    return Fake("Dataset007_Small", f"e{number}", 1.0, 0, 0, "T", "P", "2d", fold, code)


def test_a_failed_run_is_told_and_does_not_stop_the_others(tmp_path: Path) -> None:
    codes = (
        "print('nonsense ' * 3); raise SystemExit(3)",
        "import os; os.kill(os.getpid(), 9)",
        WRITE,
    )
    runs = [fake(tmp_path, n, code) for n, code in enumerate(codes)]
    sweep = Sweep.model_validate(
        {"datasets": [7], "encoders": {"a": {}}, "at_a_time": 2, "device": "cpu"}
    )
    told: list[Outcome] = []
    outcomes = run_here(runs, sweep, tmp_path, told.append)
    assert [o.state for o in outcomes] == ["failed", "failed", "finished"]
    assert sorted(o.run for o in told) == sorted(o.run for o in outcomes)
    assert "return code 3" in outcomes[0].reason
    assert "nonsense nonsense nonsense" in outcomes[0].reason
    assert "killed by the system, most likely for memory" in outcomes[1].reason
    assert runs[2].state() is State.FINISHED
    lines = read_status(runs, tmp_path)
    assert [line.state for line in lines] == ["failed", "failed", "finished"]
    assert "2 failed, 1 finished" in table(lines)
    shown = page(lines, "<small>")
    assert 'http-equiv="refresh"' in shown
    assert "&lt;small&gt;" in shown
    assert "nonsense" in shown


def test_gpus_are_shared_out(tmp_path: Path) -> None:
    code = f"import os\nopen({str(tmp_path)!r} + '/' + os.environ['CUDA_VISIBLE_DEVICES'], 'a').write('x')\n{WRITE}"
    runs = [fake(tmp_path, n, "import time; time.sleep(0.5)\n" + code) for n in range(4)]
    words = {
        "datasets": [7],
        "encoders": {"a": {}},
        "at_a_time": 2,
        "gpus": [3, 5],
        "device": "cuda",
    }
    assert {
        o.state for o in run_here(runs, Sweep.model_validate(words), tmp_path, lambda _: None)
    } == {"finished"}
    assert (tmp_path / "3").read_text() + (tmp_path / "5").read_text() == "xxxx"


@pytest.mark.skipif(
    len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="needs two cores"
)
def test_cores_are_shared_out(tmp_path: Path) -> None:
    code = f"import os\nopen({str(tmp_path)!r} + f'/{{min(os.sched_getaffinity(0))}}', 'a').write('x')\n{WRITE}"
    runs = [fake(tmp_path, n, "import time; time.sleep(0.5)\n" + code) for n in range(4)]
    words = {"datasets": [7], "encoders": {"a": {}}, "at_a_time": 2, "device": "cpu"}
    assert {
        o.state for o in run_here(runs, Sweep.model_validate(words), tmp_path, lambda _: None)
    } == {"finished"}
    first, second = sorted(os.sched_getaffinity(0))[:2]
    assert (tmp_path / str(first)).read_text() + (tmp_path / str(second)).read_text() == "xxxx"


def test_more_runs_than_cores_take_turns() -> None:
    words = {"datasets": [7], "encoders": {"a": {}}, "at_a_time": 1000, "device": "cpu"}
    shares = places(Sweep.model_validate(words))
    assert len(shares) == 1000
    assert all(len(s.cores or ()) == 1 for s in shares)


def test_two_processes_do_not_train_one_run(tmp_path: Path) -> None:
    run = fake(tmp_path, 0, WRITE)
    (tmp_path / "running").mkdir()
    (tmp_path / "running" / run.name).write_text(f"{socket.gethostname()} 1")
    assert running(tmp_path) == [run.name]
    sweep = Sweep.model_validate({"datasets": [7], "encoders": {"a": {}}, "device": "cpu"})
    other = fake(tmp_path, 1, WRITE)
    refused, trained = run_here([run, other], sweep, tmp_path, lambda _: None)
    assert (refused.state, trained.state) == ("failed", "finished")
    assert "another process trains it" in refused.reason
    (tmp_path / "running" / run.name).write_text(f"{socket.gethostname()} 999999999")
    assert not running(tmp_path)  # its process is dead
    assert run_here([run], sweep, tmp_path, lambda _: None)[0].state == "finished"
    (tmp_path / "running" / run.name).write_text("another-machine 1")
    assert running(tmp_path) == [run.name]  # its log was written a moment ago
    os.utime(tmp_path / "logs" / f"{run.name}.log", (0, 0))
    assert not running(tmp_path)
    (tmp_path / "running" / run.name).write_text("")
    assert not running(tmp_path)


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
            with suppress(RuntimeError), _marked(run, tmp_path):
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
        assert not running(tmp_path)


def test_each_gpu_gets_a_run_unless_told_otherwise() -> None:
    words = {"datasets": [7], "encoders": {"a": {}}, "gpus": [3, 5]}
    assert Sweep.model_validate(words).at_a_time == 2
    assert Sweep.model_validate(words | {"at_a_time": 1}).at_a_time == 1


def test_a_run_that_was_finished_meanwhile_is_not_trained_again(tmp_path: Path) -> None:
    run = fake(tmp_path, 0, WRITE)
    sweep = Sweep.model_validate({"datasets": [7], "encoders": {"a": {}}, "device": "cpu"})
    assert [
        o.state for _ in range(2) for o in run_here([run], sweep, tmp_path, lambda _: None)
    ] == ["finished"] * 2
    assert (tmp_path / "logs" / f"{run.name}.log").read_text().count("$ ") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_lost_connection_ends_the_children(number: int, tmp_path: Path) -> None:
    children, codes = Children(), list[int]()
    words = ["python", "-c", "import time; time.sleep(60)"]
    thread = threading.Thread(
        target=lambda: codes.append(children.run(words, tmp_path / "log", {}))
    )
    with pytest.raises(KeyboardInterrupt), stopping(children):
        thread.start()
        while not children.running:
            time.sleep(0.01)
        os.kill(os.getpid(), number)
        time.sleep(10)
    thread.join(10)
    assert codes == [-signal.SIGTERM]


@pytest.mark.parametrize(
    ("slurm", "message"),
    [({}, "slurm: no time; give the minutes"), ({"partitoin": "gpu", "time": 60}, "partitoin")],
)
def test_resources_that_slurm_does_not_know_say_so(
    slurm: dict[str, Any], message: str, tmp_path: Path
) -> None:
    sweep = Sweep.model_validate({"datasets": [7], "encoders": {"a": {}}, "slurm": slurm})
    with pytest.raises(ValueError, match=message):
        batch_file([fake(tmp_path, 0, WRITE)], sweep, tmp_path)


def test_progress_is_read_from_nnunet_s_logs(tmp_path: Path) -> None:
    (tmp_path / "debug.json").write_text(json.dumps({"num_epochs": "10"}))
    lines = []
    for epoch, dice in ((0, 0.5), (1, 0.7), (1, 0.6)):  # epoch 1 again after a kill
        lines += [
            f"2026-01-01 00:00:00: Epoch {epoch} ",
            f"2026: Pseudo dice [np.float32({dice}), np.float32({dice})] ",
        ]
        lines += ["2026: Epoch time: 20.0 s "]
    lines += ["2026: Epoch 2 ", "2026: Current learning rate: 0.1 "]
    (tmp_path / "training_log_2026_1.txt").write_text("\n".join(lines))
    found = read_progress(tmp_path)
    assert (found.epoch, found.epochs, found.seconds) == (2, 10, 40)
    assert found.ema_dice == pytest.approx(0.9 * 0.5 + 0.1 * 0.6)
    assert found.seconds_left == 160
    assert read_progress(tmp_path / "none").epoch == 0
